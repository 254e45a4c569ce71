"""What is measured: each module is one row of the table, or a family of rows."""
