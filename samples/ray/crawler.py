"""Crawls a web that lies in the object store: pages are fetched as soon as a link to them is known, at most eight at
a time, and handled in the order in which they arrive."""

import ray


def make_web(n):
    """Page k links to 2k+1, 2k+2 and k//3; some links lead nowhere."""
    return {f"/{k}": [f"/{2 * k + 1}", f"/{2 * k + 2}", f"/{k // 3}"] for k in range(n)}


@ray.remote(max_retries=0)
def fetch(web, url):
    if url not in web:
        raise FileNotFoundError(url)
    return url, web[url]


def main():
    ray.init(num_cpus=2)
    web = ray.put(make_web(60))
    seen, frontier, broken = {"/0"}, ["/0"], []
    running = {}
    pages = links = 0
    while frontier or running:
        while frontier and len(running) < 8:
            url = frontier.pop()
            running[fetch.remote(web, url)] = url
        ready, _ = ray.wait(list(running), num_returns=1)
        url = running.pop(ready[0])
        try:
            _, found = ray.get(ready[0])
        except FileNotFoundError:
            broken.append(url)
            continue
        pages += 1
        links += len(found)
        for link in found:
            if link not in seen:
                seen.add(link)
                frontier.append(link)
    print(pages, "pages,", links, "links,", len(broken), "broken")
    print("first broken", min(broken, key=lambda u: int(u[1:])))


if __name__ == "__main__":
    main()
