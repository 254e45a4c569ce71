"""Custom integrations: this file makes the folder the package that Home Assistant loads them from."""
