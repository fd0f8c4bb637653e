"""Many runs: which device each has, searching, and the table over them."""
