import assert from 'node:assert/strict';
import { closeSync, cpSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { dump, Fixture } from './fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from './programs.ts';

/** The suite, with this many random programs. */
export function modelSuite(runs: number): void {
  describe('a view against the model', function () {
    this.timeout(300_000);
    let fixture: Fixture;
    let logs = 0;

    before(async () => {
      fixture = new Fixture();
      await fixture.image(IMAGE);
    });
    after(() => fixture.remove());

    const fresh = (): string => `log-${logs++}`;
    const drop = (name: string): void => rmSync(join(fixture.dir, name), { recursive: true });

    it('shows the image alone as it is', () => {
      const name = fresh();
      const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
      pair.check();
      pair.view.close();
      drop(name);
    });

    it('answers every operation as the model does, over remounts with and without checkpoint', () => {
      fc.assert(
        fc.property(
          fc.array(fc.array(operation, { maxLength: 60, size: 'max' }), { maxLength: 4 }),
          fc.boolean(),
          (mounts, checkpoints) => {
            const name = fresh();
            const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
            try {
              for (const ops of mounts) {
                for (const op of ops) pair.run(op);
                pair.check();
                const before = dump(pair.view, true);
                if (checkpoints) {
                  pair.view.checkpoint();
                  pair.view.close();
                } else crash(pair);
                pair.view = fixture.view(name);
                assert.deepEqual(dump(pair.view, true), before, 'times and inode numbers survive a remount');
              }
            } finally {
              pair.view.close();
              drop(name);
            }
          },
        ),
        { numRuns: runs },
      );
    });

    it('stands at the last whole commit wherever the log is cut', () => {
      fc.assert(
        fc.property(fc.array(operation, { minLength: 20, maxLength: 60, size: 'max' }), fc.nat(63), (ops, odd) => {
          const name = fresh();
          const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
          const states = [{ size: 192, lines: pair.model.dump() }];
          for (const op of ops) {
            pair.run(op);
            // Appends stay unwritten, to grow, until another operation comes; which may be the one that writes.
            if ((pair.view.dirty() && op.op !== 'append') || op.op === 'flush')
              states.push({ size: pair.view.flush(), lines: pair.model.dump() });
          }
          crash(pair);
          const size = states.at(-1)!.size;
          for (let cut = 192; cut < size; cut += 64 * (1 + Math.floor(size / 64 / 60))) {
            const copy = fresh();
            cpSync(join(fixture.dir, name), join(fixture.dir, copy), { recursive: true });
            truncateSync(join(fixture.dir, copy, 'log'), cut + odd);
            const expected = states.findLast((state) => state.size <= cut + odd)!;
            const log = fixture.log(copy);
            assert.equal(log.written, expected.size, `cut at ${cut + odd} of ${size}`);
            log.close();
            assert.equal(
              readFileSync(join(fixture.dir, copy, 'log')).length,
              expected.size,
              'the torn tail is cut off',
            );
            const view = fixture.view(copy);
            assert.deepEqual(dump(view), expected.lines, `cut at ${cut + odd} of ${size}`);
            view.close();
            drop(copy);
          }
          drop(name);
        }),
        { numRuns: Math.ceil(runs / 12) },
      );
    });
  });
}

/** What a killed process leaves: everything flushed is in the file, nothing else happens. */
function crash(pair: Pair): void {
  pair.view.flush();
  closeSync(pair.view.logFd());
}
