"""A driver on asyncio: references are awaited, streams iterated, callbacks run."""

import asyncio

import ray


@ray.remote
def double(x):
    return 2 * x


@ray.remote
def fail():
    raise KeyError("missing")


@ray.remote
def numbers(n):
    for k in range(n):
        yield k


@ray.remote
class Chat:
    def __init__(self):
        self.messages = asyncio.Queue()

    async def say(self, text):
        await self.messages.put(text)

    async def hear(self):
        return await self.messages.get()


async def main():
    print(await double.remote(4))
    print(await asyncio.gather(*[double.remote(k) for k in range(5)]))
    done, pending = await asyncio.wait([asyncio.ensure_future(wrap(double.remote(9)))], timeout=30)
    print(len(done), len(pending), done.pop().result())
    try:
        await fail.remote()
    except KeyError:
        print("KeyError")
    print([await ref async for ref in numbers.remote(4)])
    chat = Chat.remote()
    heard = [chat.hear.remote() for _ in range(3)]
    for word in ("a", "b", "c"):
        await chat.say.remote(word)
    print(sorted(await asyncio.gather(*heard)))
    print(double.remote(21).future().result(timeout=30))


async def wrap(ref):
    return await ref


if __name__ == "__main__":
    ray.init(num_cpus=2)
    asyncio.run(main())
