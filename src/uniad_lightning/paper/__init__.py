"""The paper's numbers, tables and figures, and run folders put beside them."""
