"""Motion blur: how sharp frames become one blurry image."""
