"""The paper's numbers, tables and figures, and run folders compared with them."""
