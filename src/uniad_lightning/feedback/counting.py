"""Numbers with their noun."""


def counted(number: int, one: str, more: str = "") -> str:
    """Such as `1 image`, `2 images`; `more` is the plural where it takes more than an s."""
    return f"{number} {one if number == 1 else more or f'{one}s'}"
