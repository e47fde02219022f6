"""A server that gathers requests into batches: an asyncio actor with a queue and one consumer."""

import asyncio

import ray

BATCH = 8


@ray.remote
class Model:
    """Doubles; counts how often it is called."""

    def __init__(self):
        self.calls = 0

    def predict(self, batch):
        self.calls += 1
        return [2 * x for x in batch]

    def count(self):
        return self.calls


@ray.remote
class Server:
    def __init__(self, model):
        self.model = model
        self.waiting = asyncio.Queue()
        self.sizes = []
        self.consumer = None

    async def request(self, x):
        if self.consumer is None:
            self.consumer = asyncio.ensure_future(self.consume())
        answer = asyncio.get_running_loop().create_future()
        await self.waiting.put((x, answer))
        return await answer

    async def consume(self):
        while True:
            batch = [await self.waiting.get()]
            await asyncio.sleep(0.2)
            while len(batch) < BATCH and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            results = await self.model.predict.remote([x for x, _ in batch])
            self.sizes.append(len(batch))
            for (_, answer), result in zip(batch, results):
                answer.set_result(result)

    async def largest_batch(self):
        return max(self.sizes)


def main():
    ray.init(num_cpus=3)
    model = Model.remote()
    server = Server.remote(model)
    answers = ray.get([server.request.remote(x) for x in range(32)])
    print("answers right:", answers == [2 * x for x in range(32)])
    print("largest batch:", ray.get(server.largest_batch.remote()))
    print("fewer calls than requests:", ray.get(model.count.remote()) < 32)


if __name__ == "__main__":
    main()
