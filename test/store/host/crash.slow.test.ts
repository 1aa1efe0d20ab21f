import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { executeBatch } from '../../../mdm/batch.ts';
import { type Instruction, makeInstruction } from '../../../mdm/instruction.ts';
import { SECTOR_BYTES } from '../../../mdm/merkle.ts';
import { Host } from '../../../store/host/host.ts';
import type { HostFile } from '../../../store/host/host-file.ts';
import { PlainFile } from '../../../store/host/plain-file.ts';
import { openStore } from '../../../store/store.ts';
import { noise, Place } from '../fixture.ts';
import { bytesOf, checkFile, fillFile } from './model.ts';
import { CRASHES, record, replay } from './recorder.ts';

const S = SECTOR_BYTES;
const I = makeInstruction;

interface Step {
  instructions: Instruction[];
  payloads: (Uint8Array | undefined)[];
}

const small: Step = { instructions: [I('Write', [5000, 4096])], payloads: [noise(4096, 2)] };
const cut: Step = {
  instructions: [I('Truncate', [S + 5000]), I('Copy', [9000, 0, S - 4500])],
  payloads: [undefined, undefined],
};
/** So much of the first sector is new that it becomes a sector file; the second is new altogether. */
const large: Step = {
  instructions: [I('Write', [100, 900_000]), I('Truncate', [2 * S + 77]), I('Write', [S, S])],
  payloads: [noise(900_000, 3), undefined, noise(S, 4)],
};

describe('store: a crash in a batch of the host', function () {
  this.timeout(300_000);
  let here: Place;
  let copies: string;
  beforeEach(() => {
    here = new Place();
    copies = mkdtempSync('/var/tmp/pg-test-');
  });
  afterEach(async () => {
    rmSync(copies, { recursive: true, force: true });
    await here.remove();
  });

  const execute = (file: HostFile, { instructions, payloads }: Step): void => {
    const result = executeBatch(file, { initial: file.state, instructions }, payloads);
    assert.equal(result.outcome, 'committed', 'error' in result ? result.error.message : '');
  };

  for (const [what, step] of Object.entries({ small, cut, large })) {
    it(`after every operation of a ${what} one: wholly there or not at all, and the next goes on from it`, async () => {
      const store = here.open();
      const host = new Host(store);
      const start = noise(S + 20_000, 1);
      const file = host.create('f');
      fillFile(file, start);
      host.copy('f', 'g');
      const before = bytesOf(file);
      const base = join(copies, 'base');
      cpSync(here.dir, base, { recursive: true });
      const operations = record(store, here.dir, () => execute(file, step));
      const after = bytesOf(file);
      const commit = operations.findLastIndex(({ kind }) => kind === 'index');
      assert.ok(commit >= 0 && (what !== 'large' || operations.filter(({ kind }) => kind === 'rename').length >= 2));
      for (let count = 0; count <= operations.length; count++) {
        for (const crash of CRASHES) {
          if (crash !== 'issued' && what === 'large' && operations[count - 1]?.kind === 'write' && count % 5 > 0)
            continue;
          const dir = join(copies, 'crashed');
          cpSync(base, dir, { recursive: true });
          replay(operations, count, dir, crash);
          const reopened = openStore({ data: dir, run: join(dir, 'run'), config: join(dir, 'etc') });
          try {
            const again = new Host(reopened);
            const found = again.open('f');
            checkFile(found, count > commit ? after : before);
            // What was written for nothing goes, what files need stays, and the same batch can be tried again.
            await reopened.collect(() => []);
            checkFile(again.open('g'), start);
            if (count <= commit) execute(found, step);
            checkFile(again.open('f'), after);
          } finally {
            await reopened.close();
          }
          rmSync(dir, { recursive: true });
        }
      }
    });
  }

  it('after every operation of one on an ordinary file: its name has all of it or nothing', async () => {
    const dir = join(copies, 'plain');
    mkdirSync(dir);
    const path = join(dir, 'f');
    const start = noise(S + 20_000, 1);
    writeFileSync(path, start);
    const base = join(copies, 'base');
    cpSync(dir, base, { recursive: true });
    const file = await PlainFile.open(path);
    const operations = record(undefined, dir, () => {
      const result = executeBatch(file, { initial: file.state, instructions: cut.instructions }, cut.payloads);
      assert.equal(result.outcome, 'committed');
    });
    file.close();
    const after = readFileSync(path);
    assert.equal(after.length, S + 5000);
    const renamed = operations.findIndex(({ kind }) => kind === 'rename');
    const isDurable = operations.findLastIndex(({ kind }) => kind === 'sync') > renamed;
    assert.ok(renamed > 0 && isDurable);
    for (let count = 0; count <= operations.length; count++) {
      for (const crash of CRASHES) {
        const crashed = join(copies, 'crashed');
        cpSync(base, crashed, { recursive: true });
        replay(operations, count, crashed, crash);
        const isNamed = count > renamed && (crash !== 'strict' || count === operations.length);
        assert.ok(readFileSync(join(crashed, 'f')).equals(isNamed ? after : start), `${count} ${crash}`);
        rmSync(crashed, { recursive: true });
      }
    }
  });
});
