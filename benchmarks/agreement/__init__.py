"""What other frameworks compute under the names of our algorithms, and how far it is from ours."""
