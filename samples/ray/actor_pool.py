"""Draws the Mandelbrot set with a pool of actors, one call per row."""

import ray
from ray.util import ActorPool

WIDTH, HEIGHT, DEPTH = 48, 16, 40


@ray.remote
class Painter:
    def row(self, y):
        c_y = 1.2 * (2 * y / (HEIGHT - 1) - 1)
        points = (complex(3.2 * x / (WIDTH - 1) - 2.2, c_y) for x in range(WIDTH))
        return y, "".join(map(self.point, points)).rstrip()

    def point(self, c):
        z = 0j
        for k in range(DEPTH):
            z = z * z + c
            if abs(z) > 2:
                return " .:-=+*"[min(k // 2, 6)]
        return "#"


def main():
    ray.init(num_cpus=3)
    pool = ActorPool([Painter.remote() for _ in range(3)])
    ordered = list(pool.map(lambda painter, y: painter.row.remote(y), range(HEIGHT)))
    print("\n".join(row for _, row in ordered))
    unordered = list(pool.map_unordered(lambda painter, y: painter.row.remote(y), range(HEIGHT)))
    print("the same rows:", sorted(unordered) == ordered)
    pool.submit(lambda painter, y: painter.row.remote(y), 0)
    print(pool.has_next(), pool.has_free(), pool.get_next()[0], pool.has_next())


if __name__ == "__main__":
    main()
