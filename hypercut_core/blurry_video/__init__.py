"""A blurry video to a sharp one: every frame is restored, and its neighbours settle its direction of time."""
