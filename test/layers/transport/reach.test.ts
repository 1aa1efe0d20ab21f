/** Where registries may send us, and how slowly they may answer. */
import assert from 'node:assert/strict';
import { isPrivateAddress, isPrivateHost, mustBePublic, publicLookup } from '../../../layers/registry/reach.ts';
import { isPassing } from '../../../layers/registry/retry.ts';
import { steady } from '../../../layers/registry/steady.ts';
import { isPgError } from '../../../mdm/error.ts';
import { collect } from './checks.ts';

const NAMES: Record<string, string[]> = {
  'registry.example': ['93.184.215.14', '2606:2800:21f:cb07:6820:80da:af6b:8b2c'],
  'inside.example': ['10.1.2.3'],
  'both.example': ['10.1.2.3', '93.184.215.14'],
};
const resolve = async (name: string): Promise<string[]> => NAMES[name] ?? Promise.reject(new Error('ENOTFOUND'));
const url = (host: string): URL => new URL(`https://${host}/v2/`);

describe('where registries send us', () => {
  it('tells private addresses, however they are written', () => {
    const hidden =
      '127.0.0.1 127.9.9.9 0.0.0.0 10.0.0.1 100.64.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.1.1 198.18.0.1 224.0.0.1 255.255.255.255 ' +
      ':: ::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0 ff02::1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:10.0.0.1 64:ff9b::10.0.0.1 [::1] [::ffff:7f00:1]';
    for (const address of hidden.split(' ')) assert.equal(isPrivateAddress(address), true, address);
    const open =
      '1.1.1.1 172.15.0.1 172.32.0.1 100.63.0.1 192.167.0.1 11.0.0.1 2606:4700::1111 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 registry.example';
    for (const address of open.split(' ')) assert.equal(isPrivateAddress(address), false, address);
    // What a URL makes of other spellings.
    for (const host of ['2130706433', '0x7f.1', '0177.0.0.1', '127.1', '①②⑦.0.0.1'])
      assert.equal(isPrivateAddress(url(host).hostname), true, host);
  });

  it('lets a registry on a public address send us to public ones only', async () => {
    const origin = url('registry.example');
    for (const host of [
      '127.0.0.1:5000',
      '[::1]',
      'localhost',
      'x.localhost',
      '169.254.169.254',
      '10.0.0.1',
      '2130706433',
    ])
      await assert.rejects(
        mustBePublic(url(host), origin, resolve),
        (error) => isPgError(error, 'REGISTRY_MISBEHAVES'),
        host,
      );
    assert.equal(await mustBePublic(url('cdn.example'), origin, resolve), true);
    assert.equal(await mustBePublic(url('inside.example'), origin, resolve), true, 'found out when it is connected to');
    assert.equal(await mustBePublic(url('registry.example'), origin, resolve), false, 'itself');
    for (const home of ['inside.example', '127.0.0.1:5000', '192.168.0.9'])
      assert.equal(
        await mustBePublic(url('10.0.0.1'), url(home), resolve),
        false,
        'a private one may send us anywhere',
      );
    assert.equal(await isPrivateHost('both.example', resolve), false);
    assert.equal(await isPrivateHost('unknown.example', resolve), false);
  });

  it('looks at the addresses that are connected to', async () => {
    const look = (name: string, all: boolean): Promise<unknown> =>
      new Promise((done, fail) => publicLookup(name, { all }, (error, found) => (error ? fail(error) : done(found))));
    for (const all of [true, false]) {
      await assert.rejects(
        look('localhost', all),
        (error) => isPgError(error, 'REGISTRY_MISBEHAVES') && /localhost \(/.test(error.message),
      );
      assert.ok(JSON.stringify(await look('1.1.1.1', all)).includes('1.1.1.1'));
    }
  });
});

describe('a body that hardly comes', () => {
  const drip = async function* (
    chunkBytes: number,
    chunks: number,
    pass: (i: number) => void,
  ): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < chunks; i++) {
      pass(i);
      yield Buffer.alloc(chunkBytes);
    }
  };

  it('is given up after a minute of a byte a second, and may be tried again', async () => {
    let now = 0;
    let fed = 0;
    const slow = drip(1, 10_000, (i) => ((now += 1000), (fed = i)));
    await assert.rejects(
      collect(steady(slow, 'a blob', () => now)),
      (error) => isPassing(error) && /a blob comes slower/.test(String(error)),
    );
    assert.equal(fed, 59);
  });

  it('goes on when it comes slowly but surely, or the reader is the slow one', async () => {
    let now = 0;
    const sure = drip(2048, 1000, () => (now += 1000));
    assert.equal((await collect(steady(sure, 'a blob', () => now))).length, 2_048_000);
    let bytes = 0;
    for await (const chunk of steady(
      drip(1, 500, () => undefined),
      'a blob',
      () => now,
    )) {
      bytes += chunk.length;
      now += 60_000;
    }
    assert.equal(bytes, 500);
  });
});
