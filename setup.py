"""Which folder is which package: `conf/` is alignzoo_conf, `plugins/` is alignzoo_plugins. The rest is in pyproject.toml."""

from setuptools import find_namespace_packages, setup

plugins = [f"alignzoo_plugins.{name}" for name in find_namespace_packages("plugins", exclude=["*.presets"])]
core = find_namespace_packages(".", include=["alignzoo", "alignzoo.*"])

setup(
    packages=[*core, "alignzoo_conf", "alignzoo_plugins", *plugins],
    package_dir={"alignzoo_conf": "conf", "alignzoo_plugins": "plugins"},
    package_data={
        "alignzoo": [
            "py.typed",
            "*.pyi",
            "**/*.json",
            "**/*.jsonl",
            "**/*.safetensors",
            "report/templates/*",
            "cli/templates/**/*",
            "label/templates/*",
            "stories/*",
        ],
        "alignzoo_conf": ["**/*.yaml"],
        "alignzoo_plugins": ["**/*.yaml", "**/*.md"],
    },
)
