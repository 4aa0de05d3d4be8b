"""A run that was made, opened from code: its values with labels, its figures, and the command.

The very last package. ``convergent.open`` leads here; nothing in the workflow's jobs does.
"""
