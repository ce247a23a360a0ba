"""What checks a plugin: the conformance suite, and the small task it runs on. `from alignzoo.testing import conformance`."""
