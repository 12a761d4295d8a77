"""From lines of work to an invoice."""
