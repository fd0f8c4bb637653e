"""Operations that torch has too, made faster on a CPU."""
