import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { bufferRoot } from '../../mdm/merkle.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { crashContent } from './crash-content.ts';
import { importAll, noise, Place, readAll } from './fixture.ts';

const CHILD = new URL('./import-child.ts', import.meta.url).pathname;
const COUNT = 60;

/** A child that imports until it is killed, and what it said it had finished. */
class Importer {
  readonly child: ChildProcess;
  private said = '';

  constructor(place: Place, seed: number) {
    this.child = spawn(process.execPath, [CHILD, place.dir, String(seed), String(COUNT)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.child.stdout!.on('data', (data) => (this.said += data));
  }

  get finished(): number {
    return this.said.split('\n').length - 1;
  }

  async until(finished: number): Promise<void> {
    while (this.finished < finished) await new Promise((resolve) => this.child.stdout!.once('data', resolve));
  }

  async kill(): Promise<void> {
    const closed = new Promise((resolve) => this.child.once('close', resolve));
    this.child.kill('SIGKILL');
    await closed;
  }
}

const REFS = new Map<string, ContentRef[]>();

/** The contents of one import. */
function imported(seed: number, round: number): { kind: 'content'; ref: ContentRef }[] {
  let refs = REFS.get(`${seed}/${round}`);
  if (!refs) {
    refs = Array.from({ length: COUNT }, (_, i) => {
      const bytes = crashContent(seed, round, i);
      return { root: bufferRoot(bytes), size: bytes.length };
    });
    REFS.set(`${seed}/${round}`, refs);
  }
  return refs.map((ref) => ({ kind: 'content', ref }));
}

/** Checks all contents of the imports that process `seed` has finished; how many there are. */
function checkImports(store: Store, seed: number): number {
  const rounds = [...store.table('images').keys({ prefix: `${seed}/` })].length;
  for (let round = 0; round < rounds; round++) {
    imported(seed, round).forEach(({ ref }, i) => {
      assert.ok(readAll(store, ref).equals(crashContent(seed, round, i)), `content ${i} of round ${round}`);
    });
  }
  return rounds;
}

describe('store: crashes and company', function () {
  this.timeout(300_000);
  let place: Place;
  let importers: Importer[];
  beforeEach(() => {
    place = new Place();
    importers = [];
  });
  afterEach(async () => {
    for (const importer of importers)
      if (importer.child.exitCode === null && importer.child.signalCode === null) await importer.kill();
    await place.remove();
  });
  const start = (seed: number): Importer => {
    const importer = new Importer(place, seed);
    importers.push(importer);
    return importer;
  };

  it('kill -9 at any moment of an import: what was finished is whole, the rest is collected', async () => {
    const store = place.open();
    for (let seed = 0; seed < 5; seed++) {
      const importer = start(seed);
      await importer.until(1);
      await new Promise((resolve) => setTimeout(resolve, 60 * seed));
      const said = importer.finished;
      await importer.kill();
      assert.ok(checkImports(store, seed) >= said, 'every import that was reported is there');
      assert.deepEqual((await store.verify()).problems, []);
    }
    const before = store.usage();
    await store.collect(() => imported(0, 0));
    assert.ok(store.usage().diskBytes < before.diskBytes);
    assert.deepEqual((await store.verify()).problems, []);
    for (const { ref } of imported(0, 0)) assert.ok(store.hasContent(ref));
  });

  it('three processes import at once, while a fourth collects: nobody loses anything', async () => {
    const store = place.open();
    for (const seed of [0, 1]) start(seed);
    const shared = noise(50_000, 77);
    for (let turn = 0; turn < 6; turn++) {
      const [ref] = await importAll(store, [shared, noise(3_000_000, turn)]);
      // Everything the others have finished stays, and `shared` goes: they are at work and must not be hurt by it.
      await store.collect(function* () {
        for (const seed of [0, 1]) {
          const rounds = [...store.table('images').keys({ prefix: `${seed}/` })].length;
          for (let round = 0; round < rounds; round++) yield* imported(seed, round);
        }
      });
      assert.ok(!store.hasContent(ref!) || readAll(store, ref!).equals(shared));
    }
    for (const importer of importers) await importer.until(2);
    for (const importer of importers) await importer.kill();
    for (const seed of [0, 1]) assert.ok(checkImports(store, seed) >= 2);
    assert.deepEqual((await store.verify()).problems, []);
  });
});
