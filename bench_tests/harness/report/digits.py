"""As many digits as a figure deserves."""

from __future__ import annotations

from bench_tests.harness.report.material import Entry


def significant(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, and never an exponent: 0.01432, 1.5, 21,868."""
    if value == 0:
        return "0"
    magnitude = len(f"{abs(value):.0f}") if abs(value) >= 1 else 1
    decimals = max(0, digits - magnitude)
    if abs(value) < 1:
        decimals = next((place for place in range(1, 12) if round(abs(value) * 10**place) >= 10 ** (digits - 1)), 12)
    return f"{value:,.{decimals}f}"


def digits(value: float) -> int:
    """Decimals of a quality in per cent: next to 100 %, where models differ by hundredths of a point, one more."""
    return 2 if 0.99 <= value < 1 else 1


def is_share(entry: Entry) -> bool:
    """Whether the first quality is a share, which is told in per cent and points; a loss is not."""
    found = entry.quality
    return found is not None and 0 <= found.value <= 1 and bool(entry.record.get("quality_higher_is_better", True))


def quality_text(value: float, share: bool) -> str:
    """A quality without its interval: ``86.1 %``, and of what is no share four digits."""
    return f"{100 * value:.{digits(value)}f} %" if share else significant(value)


def change_text(entry: Entry, unit: str = "") -> str:
    """The first quality against the original's with its interval, better is above 0: ``-0.5 [-1.1, +0.1]``.

    Of shares in points; ``unit`` stands behind the estimate. Empty where no change was judged.
    """
    if entry.drop is None:
        return ""
    share = is_share(entry)
    kind = f"+.{digits(entry.quality.value)}f" if entry.quality is not None and share else "+.3g"
    factor = 100.0 if share else 1.0
    value, low, high = (_signed(-factor * end, kind) for end in (entry.drop.value, entry.drop.high, entry.drop.low))
    return f"{value}{unit}" + ("" if entry.drop.low == entry.drop.high else f" [{low}, {high}]")


def _signed(value: float, kind: str) -> str:
    text = format(value, kind)
    return text.replace("-", "+") if float(text) == 0 else text
