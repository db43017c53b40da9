"""The sentences of a report: findings in, text out. Nothing here knows of tables, figures or pages."""
