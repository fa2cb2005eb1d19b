"""The forms a report takes: a page, Markdown, a PDF, tables and pictures."""
