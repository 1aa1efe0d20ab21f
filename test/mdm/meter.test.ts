import assert from 'node:assert/strict';
import fc from 'fast-check';
import { appendBatch } from '../../mdm/append-batch.ts';
import { costOf } from '../../mdm/batch.ts';
import type { Cost } from '../../mdm/cost.ts';
import { makeInstruction } from '../../mdm/instruction.ts';
import { amountOf, appendCost, type Budget, Meter } from '../../mdm/meter.ts';

const RUNS = Number(process.env['PG_TEST_CASES'] ?? 200);
const sizes = fc.oneof(fc.nat(10_000), fc.nat(2 ** 26), fc.nat(2 ** 40));
const lengths = fc.oneof(fc.integer({ min: 1, max: 10_000 }), fc.integer({ min: 1, max: 2 ** 25 }));
const PRICES: Cost = { accesses: 0.5, read: 0.001, written: 0.004, compute: 0.01 };

describe('a meter', () => {
  it('charges appends and reads what the machine says they cost', () => {
    fc.assert(
      fc.property(sizes, lengths, (size, length) => {
        assert.deepEqual(appendCost(size, length), costOf(appendBatch(size, length), size).cost);
        const meter = new Meter();
        meter.restore({ accesses: 0, read: 0, written: 0, compute: 0 }, size + length);
        assert.ok(meter.read(length));
        const read = costOf([makeInstruction('Read', [size, length])], size + length).cost;
        assert.deepEqual(meter.spent, read);
      }),
      { numRuns: RUNS },
    );
  });

  it('allows no batch that would cost more than is left, and all but the last blocks of those that would not', () => {
    const some = fc.option(fc.oneof(fc.nat(2 ** 20), fc.nat(2 ** 30)), { nil: undefined });
    const budgets = fc.record({ accesses: some, read: some, written: some, compute: some, total: some });
    fc.assert(
      fc.property(sizes, budgets, lengths, (size, { total, ...limits }, length) => {
        const budget: Budget = {};
        for (const [name, value] of Object.entries(limits)) if (value !== undefined) budget[name as keyof Cost] = value;
        if (total !== undefined) budget.amount = { total, prices: PRICES };
        const within = (cost: Cost): boolean =>
          Object.entries(limits).every(([name, value]) => value === undefined || cost[name as keyof Cost] <= value) &&
          (total === undefined || amountOf(cost, PRICES) <= total);
        const meter = new Meter();
        meter.restore({ accesses: 0, read: 0, written: 0, compute: 0 }, size);
        meter.setBudget(budget);
        if (meter.limit === Infinity) return;
        const most = meter.limit - size;
        if (most > 0) assert.ok(within(appendCost(size, most)), `${most} bytes at ${size}`);
        // Nobody is refused who has a sector's accesses, and the blocks at both ends, to spare.
        const roomy = appendCost(size, length);
        const spare = { accesses: 4, read: 4096, written: 8192, compute: 1024 };
        const generous = {
          accesses: roomy.accesses + spare.accesses,
          read: roomy.read + spare.read,
          written: roomy.written + spare.written,
          compute: roomy.compute + spare.compute,
        };
        meter.setBudget(generous);
        assert.ok(meter.limit >= size + length, `${length} bytes at ${size} of ${meter.limit}`);
        meter.append(size, length);
        assert.deepEqual(meter.spent, roomy);
      }),
      { numRuns: RUNS },
    );
  });

  it('refuses a read that is too much, without charging it, until the budget is raised', () => {
    const meter = new Meter();
    meter.setBudget({ read: 10_000 });
    assert.ok(meter.readRoot(6000));
    assert.equal(meter.readRoot(6000), false);
    assert.equal(meter.spent.read, 6000);
    meter.setBudget({ read: 20_000 });
    assert.ok(meter.readRoot(6000));
    meter.setBudget(null);
    assert.ok(meter.readRoot(2 ** 40));
    assert.equal(meter.limit, Infinity);
  });
});
