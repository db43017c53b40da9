"""The executive report: one self-contained HTML page, its Markdown twin, the figures and a tidy CSV."""
