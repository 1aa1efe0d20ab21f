import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { askForCopy, copyServices } from '../../grid/copies.ts';
import { importImage } from '../../layers/import.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import { repair } from '../../runtime/repair.ts';
import { scrub } from '../../runtime/verify.ts';
import { indexDir } from '../../store/paths.ts';
import { openStore, type Store } from '../../store/store.ts';
import { noise } from '../store/fixture.ts';
import { startPair, writeArchive, type Pair } from './pair.ts';

const QUIET = { start: (): void => {}, advance: (): void => {}, done: (): void => {} };

describe('copies of what a peer has lost', () => {
  let pair: Pair;
  let store: Store;
  let peer: Store;
  let sector: Uint8Array;

  beforeEach(async () => {
    pair = await startPair((b) => {
      const its = openStore(b);
      return { services: { contents: copyServices(its) }, close: () => its.close() };
    });
    [store, peer] = [openStore(pair.a), openStore(pair.b)];
    const archive = join(pair.dir, 'image.tar');
    await writeArchive(archive, 'made:latest', [
      { 'usr/': null, 'usr/tool': noise(90_000, 1), 'usr/other': noise(60_000, 2) },
    ]);
    for (const one of [store, peer]) await importImage(one, `docker-archive:${archive}`);
    sector = [...store.table('sectors').keys()][0]!;
  });
  afterEach(async () => {
    await store.close();
    await peer.close();
    await pair.end();
  });

  function flip(roots: { data: string }, at: number): void {
    const name = Buffer.from(sector).toString('hex');
    const path = join(roots.data, 'sectors', name.slice(0, 2), name);
    const bytes = readFileSync(path);
    bytes[at]! ^= 1;
    writeFileSync(path, bytes);
  }

  async function mend(): Promise<string> {
    const said: string[] = [];
    await repair(pair.a, store, await scrub(pair.a, store, [], QUIET), [], QUIET, (line) => said.push(line));
    return said.join('\n');
  }

  it('a damaged sector comes from a peer', async () => {
    flip(pair.a, 50_000);
    const { findings } = await scrub(pair.a, store, [], QUIET);
    const words = findings.map(({ message }) => message).join('\n');
    assert.match(words, /^sector [0-9a-f]{64}: block 12 does not have its checksum/);
    assert.match(words, /image made:latest: \/usr\/(tool|other) cannot be read: sector [0-9a-f]{64}/);
    assert.match(words, /image made:latest: layer [0-9a-f]{12} cannot be exported: 1 of its files is damaged/);
    assert.match(await mend(), /^mended: sector [0-9a-f]{64}: from peer b$/);
    assert.deepEqual((await scrub(pair.a, store, [], QUIET)).findings, []);
  });

  it('one that the peer has damaged, too, or not at all, does not', async () => {
    flip(pair.a, 50_000);
    flip(pair.b, 51_000);
    assert.equal(await mend(), '');
    assert.equal(await askForCopy(pair.connection, 'sector', noise(32, 5)), undefined);
    assert.equal(await askForCopy(pair.connection, 'node', noise(32, 5)), undefined);
    assert.equal((await scrub(pair.a, store, [], QUIET)).findings.length, 3);
  });

  it('a peer that is away is said to be no help', async () => {
    flip(pair.a, 50_000);
    writeFileSync(
      join(pair.a.data, 'node/peers/b.json'),
      readFileSync(join(pair.a.data, 'node/peers/b.json'), 'utf8').replace(/"port": \d+/, '"port": 1'),
    );
    assert.match(await mend(), /^peer b was no help: peer b at 127\.0\.0\.1:1 cannot be reached/);
  });

  it('a damaged directory comes from a peer', async () => {
    const [hash, node] = [...store.table('nodes').range()].map(({ key, value }) => [
      Buffer.from(key),
      Buffer.from(value),
    ])[0]!;
    assert.deepEqual((await askForCopy(pair.connection, 'node', hash!)) ?? null, node);
    await store.close();
    const path = join(indexDir(pair.a), 'data.mdb');
    const file = readFileSync(path);
    for (let i = file.indexOf(node!); i >= 0; i = file.indexOf(node!, i + 1)) file[i + 30]! ^= 1;
    writeFileSync(path, file);
    store = openStore(pair.a);
    assert.match(await mend(), new RegExp(`^mended: node ${hash!.toString('hex')}: from peer b$`));
    assert.ok(bufferRoot(store.table('nodes').get(hash!)!).every((byte, i) => byte === hash![i]));
    assert.deepEqual((await scrub(pair.a, store, [], QUIET)).findings, []);
    rmSync(join(pair.dir, 'image.tar'));
  });
});
