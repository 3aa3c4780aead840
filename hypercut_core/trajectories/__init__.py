"""From one blurry photo or a clip to the paths of a face or of hands over the exposure."""
