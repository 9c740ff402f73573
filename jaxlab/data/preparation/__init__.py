"""From packages, mirrors and folders to prepared TFDS data sets: routes, their checks, and what unpacks them."""
