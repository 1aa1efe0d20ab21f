import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { idOfPublicKey, loadIdentity, publicKeyOfId, signAs, signedBy } from '../../grid/identity.ts';
import { addPeer, findPeer, getPeer, listPeers, parseAddress, peerOfId, removePeer } from '../../grid/peers.ts';
import { isPgError } from '../../mdm/error.ts';
import { nodeDir, resolveRoots, type Roots } from '../../store/paths.ts';

const code =
  (expected: string) =>
  (error: unknown): boolean =>
    isPgError(error, expected) || assert.fail(`not a ${expected}: ${String(error)}`);

describe('a node', () => {
  let dir: string;
  let roots: Roots;
  beforeEach(() => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    roots = resolveRoots(dir, {}, 0);
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it("has libp2p's PeerId of its key", () => {
    // The example of libp2p's specs/peer-ids/peer-ids.md, "Test vectors" (ed25519).
    const key = Buffer.from('1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e', 'hex');
    assert.equal(idOfPublicKey(key), '12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq');
    assert.deepEqual(Buffer.from(publicKeyOfId(idOfPublicKey(key))), key);
  });

  it('refuses what is no id', () => {
    for (const text of [
      '',
      'x',
      '12D3Koo',
      '0OIl',
      `${'1'.repeat(2000)}`,
      'QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N',
    ]) {
      assert.throws(() => publicKeyOfId(text), code('BAD_NODE_ID'), text);
    }
  });

  it('makes its identity once, for its owner only', () => {
    const first = loadIdentity(roots);
    assert.match(first.id, /^12D3KooW[1-9A-HJ-NP-Za-km-z]{44}$/);
    assert.equal(loadIdentity(roots).id, first.id);
    assert.equal(statSync(join(nodeDir(roots), 'key.pem')).mode & 0o777, 0o600);
    assert.equal(statSync(nodeDir(roots)).mode & 0o777, 0o700);
    chmodSync(join(nodeDir(roots), 'key.pem'), 0o644);
    assert.throws(() => loadIdentity(roots), code('KEY_READABLE'));
  });

  it('refuses a key file of another kind', () => {
    mkdirSync(nodeDir(roots), { recursive: true });
    const path = join(nodeDir(roots), 'key.pem');
    writeFileSync(path, 'no key', { mode: 0o600 });
    assert.throws(() => loadIdentity(roots), code('BAD_KEY'));
    writeFileSync(
      path,
      execFileSync('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout'], { stdio: 'pipe' }),
    );
    assert.throws(() => loadIdentity(roots), code('BAD_KEY'));
  });

  it('has a certificate that Node and OpenSSL accept as self-signed by its key', () => {
    const identity = loadIdentity(roots);
    const certificate = new X509Certificate(identity.certPem);
    assert.equal(certificate.subject, `CN=${identity.id}`);
    assert.ok(certificate.checkPrivateKey(identity.privateKey));
    assert.ok(certificate.verify(certificate.publicKey));
    const path = join(dir, 'cert.pem');
    writeFileSync(path, identity.certPem);
    const said = execFileSync('openssl', ['verify', '-x509_strict', '-check_ss_sig', '-CAfile', path, path], {
      encoding: 'utf8',
    });
    assert.equal(said.trim(), `${path}: OK`);
  });

  it('signs so that others can check it by its id alone', () => {
    const identity = loadIdentity(roots);
    const bytes = Buffer.from('released');
    const signature = signAs(identity, bytes);
    assert.ok(signedBy(identity.id, bytes, signature));
    assert.ok(!signedBy(identity.id, Buffer.from('Released'), signature));
    const other = idOfPublicKey(Buffer.alloc(32, 7));
    assert.ok(!signedBy(other, bytes, signature));
  });
});

describe('known peers', () => {
  let dir: string;
  let roots: Roots;
  const idA = idOfPublicKey(Buffer.alloc(32, 1));
  const idB = idOfPublicKey(Buffer.alloc(32, 2));
  beforeEach(() => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    roots = resolveRoots(dir, {}, 0);
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('are added, listed, moved to another address, found and removed', () => {
    assert.deepEqual(listPeers(roots), []);
    addPeer(roots, 'b', '192.0.2.1:99', idB);
    addPeer(roots, 'a', '[2001:db8::1]', idA);
    assert.deepEqual(listPeers(roots), [
      { name: 'a', id: idA, host: '2001:db8::1', port: 7411 },
      { name: 'b', id: idB, host: '192.0.2.1', port: 99 },
    ]);
    addPeer(roots, 'b', 'host.example:100', idB);
    assert.equal(peerOfId(roots, idB)?.host, 'host.example');
    removePeer(roots, 'b');
    assert.equal(findPeer(roots, 'b'), undefined);
    assert.throws(() => removePeer(roots, 'b'), code('PEER_NOT_FOUND'));
    assert.throws(() => getPeer(roots, '../key'), code('PEER_NOT_FOUND'));
  });

  it('have one name and one id each', () => {
    addPeer(roots, 'a', 'h:1', idA);
    assert.throws(() => addPeer(roots, 'a', 'h:1', idB), code('PEER_EXISTS'));
    assert.throws(() => addPeer(roots, 'c', 'h:1', idA), code('PEER_EXISTS'));
    assert.equal(listPeers(roots).length, 1);
  });

  it('need a name, an address and an id that can be', () => {
    for (const name of ['', '.', '../x', 'a/b', '-a', 'a b', 'x'.repeat(64)]) {
      assert.throws(() => addPeer(roots, name, 'h:1', idA), code('BAD_PEER_NAME'), name);
    }
    for (const address of ['', ':1', 'h:', 'h:x', 'h:65536', 'h:1:2', 'a b:1', '[::1', 'h/p:1']) {
      assert.throws(() => addPeer(roots, 'a', address, idA), code('BAD_ADDRESS'), address);
    }
    assert.throws(() => addPeer(roots, 'a', 'h:1', 'me'), code('BAD_NODE_ID'));
    assert.deepEqual(parseAddress('[::1]:5'), { host: '::1', port: 5 });
  });

  it('name the file that is not a peer', () => {
    addPeer(roots, 'a', 'h:1', idA);
    const path = join(nodeDir(roots), 'peers', 'a.json');
    for (const text of ['', '{}', readFileSync(path, 'utf8').replace('"version": 1', '"version": 2')]) {
      writeFileSync(path, text);
      assert.throws(
        () => listPeers(roots),
        (e: Error) => isPgError(e, 'BAD_PEER_FILE') && e.message.includes(path),
      );
    }
  });
});
