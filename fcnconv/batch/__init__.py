"""Many images: `inputs` finds them, `workers` runs some at a time, `folder` keeps their maps, resumably."""
