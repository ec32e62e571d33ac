"""One module per screen; the App imports each when it is first shown."""
