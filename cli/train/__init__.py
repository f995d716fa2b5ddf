"""`mixer train` and `mixer fine-tune`."""
