"""Heat on a square plate: strips of rows live in actors, which exchange their borders every step."""

import numpy as np
import ray

SIZE, STRIPS, STEPS = 24, 3, 40


def step(grid, top, bottom):
    """One step of the rows of `grid`, with the neighbouring rows."""
    wide = np.vstack([top, grid, bottom])
    wide = np.pad(wide, ((0, 0), (1, 1)))
    inner = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    return grid + 0.2 * (inner - 4 * grid)


@ray.remote
class Strip:
    def __init__(self, rows):
        self.rows = rows.copy()

    def borders(self):
        return self.rows[0], self.rows[-1]

    def advance(self, above, below):
        zero = np.zeros(self.rows.shape[1])
        self.rows = step(
            self.rows, zero if above is None else above[1], zero if below is None else below[0]
        )

    def value(self):
        return self.rows


def sequential(grid):
    for _ in range(STEPS):
        zero = np.zeros(SIZE)
        grid = step(grid, zero, zero)
    return grid


def main():
    ray.init(num_cpus=4)
    grid = np.zeros((SIZE, SIZE))
    grid[SIZE // 2, SIZE // 3] = 100.0
    strips = [Strip.remote(part) for part in np.split(grid, STRIPS)]
    for _ in range(STEPS):
        borders = [strip.borders.remote() for strip in strips]
        for k, strip in enumerate(strips):
            above = borders[k - 1] if k else None
            below = borders[k + 1] if k + 1 < STRIPS else None
            strip.advance.remote(above, below)
    result = np.vstack(ray.get([strip.value.remote() for strip in strips]))
    print("heat left", round(float(result.sum()), 6))
    print("warmest", round(float(result.max()), 6), "at", divmod(int(result.argmax()), SIZE))
    print("as the sequential program:", bool(np.allclose(result, sequential(grid))))


if __name__ == "__main__":
    main()
