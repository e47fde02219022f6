"""Transfers between accounts: actors that call actors. Whatever the order, nothing is lost."""

import random

import ray


@ray.remote
class Account:
    def __init__(self, balance):
        self.balance = balance

    def withdraw(self, amount):
        if amount > self.balance:
            return False
        self.balance -= amount
        return True

    def deposit(self, amount):
        self.balance += amount

    def read(self):
        return self.balance


@ray.remote
class Teller:
    def __init__(self, accounts, seed):
        self.accounts, self.rng = accounts, random.Random(seed)

    def work(self, transfers):
        refused = 0
        for _ in range(transfers):
            source, target = self.rng.sample(self.accounts, 2)
            amount = self.rng.randrange(1, 80)
            if ray.get(source.withdraw.remote(amount)):
                ray.get(target.deposit.remote(amount))
            else:
                refused += 1
        return transfers - refused > 0


def main():
    ray.init(num_cpus=4)
    accounts = [Account.remote(100) for _ in range(5)]
    tellers = [Teller.remote(accounts, seed) for seed in range(3)]
    print("all worked:", all(ray.get([teller.work.remote(30) for teller in tellers])))
    balances = ray.get([account.read.remote() for account in accounts])
    print("total", sum(balances), "none below zero:", min(balances) >= 0)


if __name__ == "__main__":
    main()
