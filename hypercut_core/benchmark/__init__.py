"""Every system side by side on one clip store: what each costs and how good it is."""
