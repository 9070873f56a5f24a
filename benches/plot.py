"""Lines over one axis, as SVG that reads well on light and dark pages."""
import math

COLOURS = ("#0b62a4", "#b5651d", "#3a7d44", "#8a3b8f")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 62, 96, 34, 52


def scale(low, high, is_logarithmic):
    """Where a value lies between 0 and 1."""
    if is_logarithmic:
        low, high = math.log10(low), math.log10(high)
        return lambda value: (math.log10(max(value, 1e-9)) - low) / ((high - low) or 1)
    return lambda value: (value - low) / ((high - low) or 1)


def nice_step(high):
    step = 10 ** math.floor(math.log10(high))
    return next(step * part for part in (0.1, 0.2, 0.5, 1, 2) if high / (step * part) <= 6)


def plot(path, title, x_name, series, logarithmic):
    """`series`: of each name, points (x, seconds). `logarithmic`: both axes, or none."""
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = [y for points in series.values() for _, y in points]
    if logarithmic:
        low, high = 10 ** math.floor(math.log10(min(ys))), 10 ** math.ceil(math.log10(max(ys)))
        ticks = [10 ** power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    else:
        step = nice_step(max(ys))
        ticks = [step * number for number in range(math.ceil(max(ys) / step) + 1)]
        low, high = 0, ticks[-1]
    across, up = scale(xs[0], xs[-1], logarithmic), scale(low, high, logarithmic)
    place_x = lambda x: LEFT + across(x) * (WIDTH - LEFT - RIGHT)
    place_y = lambda y: HEIGHT - BOTTOM - up(y) * (HEIGHT - TOP - BOTTOM)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{title}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 10}" text-anchor="middle">{x_name}</text>',
        f'<text x="14" y="{HEIGHT / 2:.0f}" transform="rotate(-90 14 {HEIGHT / 2:.0f})" text-anchor="middle">seconds</text>',
    ]
    for tick in ticks:
        y = place_y(tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for x in xs:
        parts.append(f'<text x="{place_x(x):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{x:,}</text>')
    ends = []
    for (name, points), colour in zip(series.items(), COLOURS):
        line = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{place_x(x):.1f}" cy="{place_y(y):.1f}" r="2.5" fill="{colour}"/>' for x, y in points]
        x, y = points[-1]
        ends.append((place_y(y), place_x(x), name, colour))
    last = -99
    for y, x, name, colour in sorted(ends):
        last = max(y, last + 14)
        parts.append(f'<text x="{x + 8:.1f}" y="{last + 4:.1f}" fill="{colour}">{name}</text>')
    with open(path, "w") as file:
        file.write("\n".join(parts + ["</svg>\n"]))
