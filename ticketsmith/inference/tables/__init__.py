"""What a benchmark shows: its tables as text, and those beside the race of whole calls: layers, footprints, load."""
