import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { isPgError } from '../../../mdm/error.ts';
import { openLog } from '../../../fs/log/log.ts';
import { buildNamespace } from '../../../fs/proof/namespace.ts';
import { verifyProof } from '../../../fs/proof/proof-file.ts';
import { takeSnapshot } from '../../../fs/proof/snapshot.ts';
import { dump, Fixture, ROOT_CALLER } from '../view/fixture.ts';
import type { ModelNode } from '../view/model.ts';
import { IMAGE, modelOfImage, operation, Pair } from '../view/programs.ts';
import { bytesOf, LABEL, Prover } from './harness.ts';
import { twinVerify } from './twin.ts';

const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 600) / 40);

describe('proofs of a container’s files', function () {
  this.timeout(120_000);
  let fixture: Fixture;
  let logs = 0;

  before(async () => {
    fixture = new Fixture();
    await fixture.image(IMAGE);
  });
  after(() => fixture.remove());

  const fresh = (): string => `log-${logs++}`;

  it('show every path and any range, whatever the program, and nothing that is not there', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80, size: 'max' }), fc.infiniteStream(fc.nat()), (ops, random) => {
        const name = fresh();
        const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
        for (const op of ops) pair.run(op);
        const before = pair.view.flush();
        const live = buildNamespace(
          takeSnapshot(fixture.store, fixture.treeRoot, join(fixture.dir, name), before).state,
        );
        pair.view.close();
        const prover = new Prover(fixture, name);
        assert.deepEqual(buildNamespace(prover.snapshot.state).root, live.root, 'from a checkpoint as by replay');
        const next = (): number => random.next().value as number;
        const visit = (node: ModelNode, path: string): void => {
          check(prover, node, path || '/', next);
          if (node.type !== 0o040000) return;
          for (const missing of ['0', 'aa', 'cc', '\xff'])
            if (!node.names.has(missing)) {
              const absent = prover.prove(`${path}/${missing}/x`);
              assert.deepEqual([verifyProof(absent).entry, twinVerify(absent).inode], [undefined, undefined]);
            }
          for (const [child, below] of node.names) visit(below, `${path}/${child}`);
        };
        visit(pair.model.root, '');
        const view = fixture.view(name);
        assert.deepEqual(dump(view), pair.model.dump(), 'the claim changed nothing');
        view.close();
        rmSync(join(fixture.dir, name), { recursive: true });
      }),
      { numRuns: CASES },
    );
  });

  /** Proves a path of the prover's files and compares with the model. */
  function check(prover: Prover, node: ModelNode, path: string, next: () => number): void {
    const isFile = node.type === 0o100000;
    const [a, b] = [next() % (node.data.length + 1), next() % (node.data.length + 1)];
    const range = isFile ? { start: Math.min(a, b), end: Math.max(a, b) } : undefined;
    const proof = prover.prove(path, range);
    const verified = verifyProof(proof);
    const twin = twinVerify(proof);
    assert.deepEqual(
      [twin.root, twin.size, twin.filesAt, twin.label, twin.inode?.mode, twin.inode?.size],
      [verified.root, verified.size, verified.claim.size, LABEL, verified.entry!.mode, isFile ? node.data.length : 0],
    );
    assert.deepEqual(twin.bytes, range === undefined ? undefined : bytesOf(verified), 'as a second verifier has it');
    assert.deepEqual(Buffer.from(verified.root), Buffer.from(prover.root));
    assert.equal(verified.size, prover.size);
    assert.deepEqual(
      [verified.claim.label, verified.claim.size, verified.claim.epoch],
      [LABEL, prover.snapshot.size, 0],
    );
    const entry = verified.entry!;
    assert.deepEqual([entry.mode, entry.uid, entry.gid], [node.type | node.mode, node.uid, node.gid], path);
    assert.equal(isFile ? entry.size : 0, isFile ? node.data.length : 0);
    if (node.type === 0o120000) assert.equal(Buffer.from(entry.symlink!).toString('latin1'), node.target);
    const xattrs = [...(entry.xattrs ?? [])].map(([key, value]) => [key, Buffer.from(value).toString('hex')]);
    assert.deepEqual(
      xattrs,
      [...node.xattrs]
        .map(([key, value]) => [key, Buffer.from(value).toString('hex')])
        .toSorted(([x], [y]) => (x! < y! ? -1 : 1)),
    );
    if (range !== undefined) assert.deepEqual(bytesOf(verified), node.data.subarray(range.start, range.end), path);
  }

  it('do not survive a byte that is changed, added or taken', () => {
    const name = fresh();
    const view = fixture.view(name);
    const { ino } = view.mknod(1, 'new', 0o100644, 0, ROOT_CALLER);
    view.write(ino, 0, Buffer.from('some words'), false);
    view.write(ino, 5000, Buffer.from('after a hole'), false);
    view.write(view.lookup(1, 'a').ino, 4000, Buffer.from('over the image'), false);
    view.close();
    const prover = new Prover(fixture, name);
    const cases = [
      prover.prove('/new', { start: 3, end: 5004 }),
      prover.prove('/a', { start: 3990, end: 4020 }),
      prover.prove('/d/a', { start: 100, end: 101 }),
      prover.prove('/d/x'),
      prover.prove('/d/d/a', { start: 0, end: 0 }),
    ];
    for (const proof of cases) {
      const honest = verifyProof(proof);
      for (let at = 0; at < proof.length; at++) {
        const bad = Buffer.from(proof);
        bad[at]! ^= 1 << (at % 8);
        refused(() => verifyProof(bad), `byte ${at} of ${proof.length}`);
        // Somebody who means it also mends the checksum: then it is refused, or something else that is true of the same log.
        if (at < proof.length - 4) {
          bad.writeUInt32LE(crc32(bad.subarray(0, -4)), bad.length - 4);
          let verified;
          try {
            verified = verifyProof(bad);
          } catch (error) {
            assert.ok(isPgError(error), `byte ${at}: ${String(error)}`);
            assert.throws(() => twinVerify(bad), `byte ${at}: the second verifier takes it`);
            continue;
          }
          assert.deepEqual(verified.root, honest.root);
          assert.deepEqual(twinVerify(bad).root, honest.root);
          isTrue(prover, verified);
        }
      }
      for (const other of [proof.subarray(0, -1), proof.subarray(1), Buffer.concat([proof, Buffer.alloc(1)])])
        refused(() => verifyProof(other), 'another length');
      const longer = resealed(Buffer.concat([proof.subarray(0, -4), Buffer.alloc(32)]));
      refused(() => verifyProof(longer), 'more than is needed');
      refused(() => verifyProof(resealed(proof.subarray(0, -36))), 'less than is needed');
    }
  });

  const resealed = (body: Buffer): Buffer => {
    const trailer = Buffer.alloc(4);
    trailer.writeUInt32LE(crc32(body));
    return Buffer.concat([body, trailer]);
  };

  function refused(action: () => unknown, what: string): void {
    assert.throws(action, (error) => isPgError(error), what);
  }

  /** What a proof says agrees with the files that it is about. */
  function isTrue(prover: Prover, verified: ReturnType<typeof verifyProof>): void {
    const path = `/${verified.question.path.map((step) => step.name).join('/')}`;
    const target = prover.target(path);
    assert.equal(target.inos.length > target.names.length, verified.entry !== undefined, path);
    const again = verifyProof(prover.prove(path, verified.question.range));
    assert.deepEqual(bytesOf(verified), bytesOf(again));
  }

  it('of earlier days hold for ever', () => {
    interface Kept {
      path: string;
      exists: boolean;
      mode: number | null;
      size: number | null;
      root: string;
      logSize: number;
      filesAt: number;
      bytes: string;
      proof: string;
    }
    const kept = JSON.parse(readFileSync(new URL('../../vectors/proofs.json', import.meta.url), 'utf8')) as {
      proofs: Kept[];
    };
    for (const { proof, ...expected } of kept.proofs) {
      const verified = verifyProof(Buffer.from(proof, 'hex'));
      const { claim, entry, root, size, question } = verified;
      const path = Buffer.from(`/${question.path.map(({ name }) => name).join('/')}`, 'latin1').toString('hex');
      const found = { mode: entry?.mode ?? null, size: entry?.size ?? null, root: Buffer.from(root).toString('hex') };
      const range = question.range ?? null;
      assert.deepEqual(
        {
          path,
          range,
          exists: entry !== undefined,
          ...found,
          logSize: size,
          filesAt: claim.size,
          bytes: bytesOf(verified).toString('hex'),
        },
        expected,
      );
      assert.deepEqual([claim.label, claim.epoch], ['container/0123456789abcdef', 0]);
    }
  });

  it('are small where the file is large', async () => {
    const name = fresh();
    const view = fixture.view(name);
    const { ino } = view.mknod(1, 'large', 0o100644, 0, ROOT_CALLER);
    const piece = Buffer.alloc(1 << 20, 7);
    for (let at = 0; at < 48 << 20; at += piece.length) view.write(ino, at, piece, false);
    view.close();
    const prover = new Prover(fixture, name);
    const proof = prover.prove('/large', { start: 30_000_000, end: 30_000_100 });
    assert.deepEqual(bytesOf(verifyProof(proof)), Buffer.alloc(100, 7));
    assert.ok(proof.length < 4096, `${proof.length} bytes`);
  });

  it('show names of a directory of thousands with few bytes', () => {
    const name = fresh();
    const view = fixture.view(name);
    const dir = view.mkdir(1, 'many', 0o755, ROOT_CALLER).ino;
    for (let i = 0; i < 5000; i++) view.mknod(dir, `file-${i}\xff`, 0o100600, 0, ROOT_CALLER);
    view.close();
    const prover = new Prover(fixture, name);
    for (const path of ['/many/file-77\xff', '/many/file-77', '/many/0', '/many/z', '/many']) {
      const proof = prover.prove(path);
      assert.equal(verifyProof(proof).entry !== undefined, path.endsWith('\xff') || path === '/many', path);
      assert.ok(proof.length < 4096, `${path}: ${proof.length} bytes`);
    }
  });

  it('hold for the empty image, deep directories, and moved directories of the image', () => {
    const bare = new Fixture();
    try {
      const view = bare.view('log');
      let at = 1;
      for (let i = 0; i < 3000; i++) at = view.mkdir(at, 'd', 0o755, ROOT_CALLER).ino;
      view.close();
      const prover = new Prover(bare, 'log');
      assert.equal(verifyProof(prover.prove('/d'.repeat(3000))).depth, 3000);
      assert.equal(verifyProof(prover.prove('/d'.repeat(3001))).entry, undefined);
    } finally {
      void bare.remove();
    }
    const name = fresh();
    const view = fixture.view(name);
    view.rename(1, 'd', view.lookup(1, 'e').ino, 'moved', 0, ROOT_CALLER);
    view.close();
    const prover = new Prover(fixture, name);
    const whole = verifyProof(prover.prove('/e/moved/a', { start: 0, end: 5000 }));
    assert.equal(bytesOf(whole).length, 5000);
    assert.equal(verifyProof(prover.prove('/d')).entry, undefined);
  });

  it('do not pass through symlinks unless told to', () => {
    const name = fresh();
    const view = fixture.view(name);
    view.symlink(1, 'l', Buffer.from('d/../d'), ROOT_CALLER);
    view.symlink(1, 'loop', Buffer.from('/loop'), ROOT_CALLER);
    view.close();
    const prover = new Prover(fixture, name);
    assert.equal(Buffer.from(verifyProof(prover.prove('/l')).entry!.symlink!).toString(), 'd/../d');
    assert.throws(
      () => prover.prove('/l/a'),
      (error) => isPgError(error, 'PROVE_SYMLINK'),
    );
    assert.deepEqual(prover.target('/l/a', true).names, ['d', 'a']);
    assert.deepEqual(prover.target('/d/b', true).names, ['a']);
    assert.equal(bytesOf(verifyProof(prover.prove('/l/b', { start: 0, end: 9000 }, true))).length, 9000);
    assert.throws(
      () => prover.target('/loop', true),
      (error) => isPgError(error, 'BAD_PATH'),
    );
    assert.throws(
      () => prover.target('/d/../a'),
      (error) => isPgError(error, 'BAD_PATH'),
    );
  });

  it('stand at the end of a log that goes on', () => {
    const name = fresh();
    const view = fixture.view(name);
    view.close();
    const prover = new Prover(fixture, name);
    const log = openLog(join(fixture.dir, name));
    assert.ok(log.size === prover.size && log.size % 64 === 0);
    log.close();
    const more = fixture.view(name);
    more.mknod(1, 'later', 0o100600, 0, ROOT_CALLER);
    more.close();
    assert.equal(verifyProof(prover.prove('/later')).entry, undefined, 'as of then');
    assert.ok(verifyProof(new Prover(fixture, name).prove('/later')).entry !== undefined);
  });
});
