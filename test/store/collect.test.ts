import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bufferRoot } from '../../mdm/merkle.ts';
import type { Reachable } from '../../store/collect.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { importAll, noise, Place, readAll } from './fixture.ts';

const content = (ref: ContentRef): Reachable => ({ kind: 'content', ref });

describe('store: collect', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  const sectorFiles = (): string[] =>
    readdirSync(join(place.dir, 'sectors'), { recursive: true, encoding: 'utf8' }).filter((name) =>
      /^..\/[0-9a-f]{64}$/.test(name),
    );

  it('removes what is not reached, and nothing else', async () => {
    const kept = [noise(5000, 1), noise(9_000_000, 2)];
    const keptRefs = await importAll(store, kept);
    await importAll(store, [noise(6000, 3), noise(9_000_000, 4)]);
    const [node, deadNode] = [Buffer.from('node'), Buffer.from('dead')];
    for (const bytes of [node, deadNode]) store.table('nodes').put(bufferRoot(bytes), bytes);
    const files = sectorFiles().length;
    const live = (): Reachable[] => [...keptRefs.map(content), { kind: 'node', hash: bufferRoot(node) }];
    const result = await store.collect(live);
    assert.equal(result.nodes, 1);
    assert.ok(result.contents >= 2 && result.sectors >= 3 && result.bytes > 9_000_000, JSON.stringify(result));
    assert.deepEqual(result.waitingFor, []);
    assert.equal(sectorFiles().length, files - result.sectors);
    assert.ok(!store.table('nodes').has(bufferRoot(deadNode)) && store.table('nodes').has(bufferRoot(node)));
    keptRefs.forEach((ref, i) => assert.ok(readAll(store, ref).equals(kept[i]!)));
    assert.deepEqual((await store.verify()).problems, []);
    const again = await store.collect(live);
    assert.equal(again.contents + again.nodes + again.sectors + again.bytes, 0);
  });

  it('keeps sectors that are named, without their contents', async () => {
    const [ref] = await importAll(store, [noise(5000, 1)]);
    const { sector } = store.contentExtents(ref!)![0]!;
    await store.collect(() => [{ kind: 'sector', root: sector }]);
    assert.ok(!store.hasContent(ref!) && store.hasSector(sector));
    assert.equal(store.readSector(sector).subarray(0, 5000).compare(noise(5000, 1)), 0);
  });

  it('leaves what a living lease may rely on, and takes it when the lease is gone', async () => {
    const [ref] = await importAll(store, [noise(5000, 1)]);
    const lease = store.lease('import of nginx');
    const result = await store.collect(() => []);
    assert.deepEqual([result.sectors, result.waitingFor], [0, ['import of nginx']]);
    assert.ok(readAll(store, ref!).equals(noise(5000, 1)));
    await store.collect(() => []);
    assert.ok(store.contentExtents(ref!));
    lease.release();
    assert.equal((await store.collect(() => [])).sectors, 1);
    assert.ok(!store.hasContent(ref!));
  });

  it('takes at last what was condemned before every lease that lives now', async () => {
    const [ref] = await importAll(store, [noise(5000, 1)]);
    const first = store.lease('first');
    await store.collect(() => []);
    const second = store.lease('second');
    first.release();
    assert.equal((await store.collect(() => [])).sectors, 1);
    assert.ok(!store.hasContent(ref!));
    second.release();
  });

  it('gives a condemned content back to an import that finds it', async () => {
    const [small, large] = [noise(5000, 1), noise(9_000_000, 2)];
    await importAll(store, [small, large]);
    const old = store.lease('old');
    await store.collect(() => []);
    const writer = store.writer();
    const sinks = [await writer.put(small.length, [small]), await writer.put(large.length, [large])];
    await writer.flush();
    old.release();
    await store.collect(() => []);
    await store.collect(() => []);
    await writer.finish();
    assert.equal(writer.stats.sectors, 0, 'nothing had to be stored again');
    for (const [i, sink] of sinks.entries()) assert.ok(readAll(store, await sink.ref).equals([small, large][i]!));
    assert.deepEqual((await store.verify()).problems, []);
  });

  it('keeps a condemned content and sector that someone with a lease has asked for', async () => {
    const [one, other] = await importAll(store, [noise(4_194_304, 1), noise(4_194_304, 2)]);
    const old = store.lease('old');
    await store.collect(() => []);
    const young = store.lease('young');
    assert.ok(store.hasContent(one!) && store.hasSector(other!.root));
    old.release();
    await store.collect(() => []);
    assert.ok(store.contentExtents(one!) && !store.contentExtents(other!));
    assert.ok(
      store.readSector(one!.root).equals(noise(4_194_304, 1)) &&
        store.readSector(other!.root).equals(noise(4_194_304, 2)),
    );
    young.release();
    await store.collect(() => []);
    assert.equal(store.usage().sectors, 0);
  });

  it('gives a condemned node back to whoever puts it, after `has` said no', async () => {
    const nodes = store.table('nodes');
    nodes.put('n', Buffer.from('1'));
    const old = store.lease('old');
    await store.collect(() => []);
    assert.ok(!nodes.has('n') && nodes.get('n')?.toString() === '1');
    const young = store.lease('young');
    old.release();
    nodes.put('n', Buffer.from('1'));
    assert.ok(nodes.has('n'));
    await store.collect(() => []);
    assert.equal(nodes.get('n')?.toString(), '1');
    young.release();
  });

  it('sees what an import added while it was marking', async () => {
    const bytes = noise(5000, 1);
    let ref: ContentRef | undefined;
    await store.collect(async function* () {
      const [late] = await importAll(store, [noise(100, 9), bytes]);
      [ref] = await importAll(store, [bytes]);
      yield content(late!);
    });
    assert.ok(readAll(store, ref!).equals(bytes));
  });

  it('does not wait for the lease of a process that was killed, and takes what it left', async () => {
    const module = new URL('../../store/store.ts', import.meta.url).pathname;
    const program = `import { openStore } from ${JSON.stringify(module)};
      const store = openStore(${JSON.stringify(place.roots)});
      const writer = store.writer('doomed');
      const bytes = Buffer.alloc(9_000_000, 7);
      bytes.write('different', 5_000_000);
      await writer.put(bytes.length, [bytes]);
      await writer.flush();
      process.stdout.write('ready');
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    await importAll(store, [noise(100, 1)]);
    assert.deepEqual((await store.collect(() => [])).waitingFor, ['doomed']);
    child.kill('SIGKILL');
    await new Promise((resolve) => child.once('close', resolve));
    mkdirSync(join(place.dir, 'sectors/tmp'), { recursive: true });
    writeFileSync(join(place.dir, 'sectors/tmp/0123456789abcdef-0'), 'left over');
    const result = await store.collect(() => []);
    assert.deepEqual(result.waitingFor, []);
    assert.deepEqual(sectorFiles(), []);
    assert.ok(!existsSync(join(place.dir, 'sectors/tmp/0123456789abcdef-0')));
    assert.deepEqual(readdirSync(join(place.dir, 'leases')), []);
    assert.equal(store.usage().sectors, 0);
  });
});
