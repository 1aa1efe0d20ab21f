import * as fc from 'fast-check';
import { Actor, type Deed, NAMES, POOL, settle } from './actors.ts';
import { Place } from './fixture.ts';

/** How many interleavings are tried; each is some ten imports, collections and repackings. */
const CASES = Number(process.env['PG_TEST_INTERLEAVINGS'] ?? 12);

const name = fc.integer({ min: 0, max: NAMES - 1 });
const content = fc.integer({ min: 0, max: POOL.length - 1 });
const deed: fc.Arbitrary<Deed> = fc.oneof(
  fc.record({
    kind: fc.constant('import' as const),
    name,
    contents: fc.array(content, { minLength: 1, maxLength: 4 }),
    finish: fc.boolean(),
  }),
  fc.record({ kind: fc.constant('adopt' as const), name, content }),
  fc.record({ kind: fc.constant('remove' as const), name }),
  fc.record({ kind: fc.constantFrom('collect' as const, 'repack' as const, 'pack' as const) }),
  fc.record({ kind: fc.constant('read' as const), name }),
);
/** Several at once, each doing one thing after another. */
const actors = fc.array(fc.array(deed, { minLength: 2, maxLength: 6 }), { minLength: 2, maxLength: 4 });

describe('store: anything at the same time', () => {
  it('never loses what is named, and keeps nothing else', async function () {
    this.timeout(300_000);
    await fc.assert(
      fc.asyncProperty(actors, fc.scheduler(), async (everybody, scheduler) => {
        const place = new Place();
        try {
          await scheduler.waitFor(
            Promise.all(
              everybody.map(async (deeds) => {
                const actor = new Actor(place.open(), () => scheduler.schedule(Promise.resolve()));
                for (const one of deeds) await actor.do(one);
              }),
            ),
          );
          await settle(place.open());
        } finally {
          await place.remove();
        }
      }),
      { numRuns: CASES, endOnFailure: true },
    );
  });
});
