import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';
import { existsSync, readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { hasLink, IMAGE, Installation, needContainers, until } from './installation.ts';

const links = (): string => readFileSync('/proc/net/dev', 'latin1');

async function get(url: string): Promise<string> {
  const response = await fetch(url, { headers: { connection: 'close' } });
  return response.text();
}

const ownAddress = (): string | undefined =>
  Object.values(networkInterfaces())
    .flat()
    .find((a) => a?.family === 'IPv4' && !a.internal)?.address;

describe('the network of containers', function () {
  this.timeout(120_000);
  let pg: Installation;
  let bridge = '';

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
  });
  after(async () => {
    await pg?.close();
    assert.ok(!links().includes(`${bridge}:`), 'the bridge is gone');
  });

  const web = ['httpd', '-f', '-p', '80', '-h', '/www'];
  const inspect = async (name: string, field: string) => pg.ok('inspect', '--format', `{{${field}}}`, name);

  it('connects containers with each other and the host, and takes everything away at the end', async () => {
    const id = await pg.ok('run', '-d', '--name', 'aa', IMAGE, ...web);
    assert.ok(hasLink(id));
    const ip = await inspect('aa', '.NetworkSettings.IPAddress');
    bridge = await inspect('aa', '.NetworkSettings.Bridge');
    const netns = await inspect('aa', '.NetworkSettings.SandboxKey');
    assert.ok(existsSync(netns));
    assert.equal(await get(`http://${ip}/`), 'hello from the image\n');
    const peer = await pg.ok('run', '--rm', IMAGE, 'wget', '-qO-', `http://${ip}/`);
    assert.equal(peer, 'hello from the image');
    await pg.ok('rm', '-f', 'aa');
    assert.ok(!existsSync(netns));
    assert.ok(!hasLink(id));
  });

  it('lets containers out to the host’s own servers', async () => {
    const server = createServer((_request, response) => response.end('of the host'));
    await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      const address = ownAddress();
      if (address === undefined) return;
      assert.equal(await pg.ok('run', '--rm', IMAGE, 'wget', '-qO-', `http://${address}:${port}/`), 'of the host');
      const named = ['--add-host', 'host.docker.internal:host-gateway', IMAGE, 'wget', '-qO-'];
      assert.equal(await pg.ok('run', '--rm', ...named, `http://host.docker.internal:${port}/`), 'of the host');
    } finally {
      server.close();
    }
  });

  it('publishes ports: on every address of the host, on 127.0.0.1, by IPv6, from another container', async () => {
    await pg.ok('run', '-d', '--name', 'pub', '-p', '80', IMAGE, ...web);
    const where = await pg.ok('port', 'pub', '80');
    const port = Number(where.split(':')[1]);
    assert.match(where, /^0\.0\.0\.0:\d+$/);
    assert.match(await pg.ok('ps', '--format', '{{.Ports}}'), new RegExp(`0.0.0.0:${port}->80/tcp`));
    const address = ownAddress();
    assert.equal(await get(`http://127.0.0.1:${port}/`), 'hello from the image\n');
    if (address !== undefined) {
      assert.equal(await get(`http://${address}:${port}/`), 'hello from the image\n');
      const url = `http://${address}:${port}/`;
      assert.equal(await pg.ok('run', '--rm', IMAGE, 'wget', '-qO-', url), 'hello from the image');
      assert.equal(await pg.ok('exec', 'pub', 'wget', '-qO-', url), 'hello from the image', 'its own, too');
    }
    if (existsSync('/proc/net/if_inet6')) assert.equal(await get(`http://[::1]:${port}/`), 'hello from the image\n');
    await pg.ok('stop', '-t', '0', 'pub');
    await assert.rejects(get(`http://127.0.0.1:${port}/`));
    await pg.ok('start', 'pub');
    await pg.ok('rm', '-f', 'pub');
  });

  it('the bridge and its rules go with the last container, and are there again for the next', async () => {
    for (const id of (await pg.ok('ps', '-aq')).split('\n').filter(Boolean)) await pg.ok('rm', '-f', id);
    await pg.ok('run', '-d', '--name', 'only', '-p', '80', IMAGE, 'sleep', '1000');
    bridge = await inspect('only', '.NetworkSettings.Bridge');
    assert.match(bridge, /^pg-/);
    assert.ok(links().includes(`${bridge}:`));
    await pg.ok('rm', '-f', 'only');
    assert.ok(!links().includes(`${bridge}:`));
    assert.ok(!execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' }).includes(bridge.replace('-', '_')));
    // One that removes itself leaves it for the next one; what nobody is connected to goes with the garbage.
    assert.match(await pg.ok('run', '--rm', IMAGE, 'ip', 'addr'), /inet 10\./);
    assert.ok(links().includes(`${bridge}:`));
    assert.match(await pg.ok('gc'), /Removed the network bridge/);
    assert.ok(!links().includes(`${bridge}:`));
  });

  it('publishes on one address only, and udp', async () => {
    await pg.ok('run', '-d', '--name', 'one', '-p', '127.0.0.1::80', '-p', '127.0.0.1::53/udp', IMAGE, ...web);
    const port = (await pg.ok('port', 'one', '80')).split(':')[1];
    assert.equal(await get(`http://127.0.0.1:${port}/`), 'hello from the image\n');
    const address = ownAddress();
    if (address !== undefined) await assert.rejects(get(`http://${address}:${port}/`));
    assert.match(await pg.ok('port', 'one', '53/udp'), /^127\.0\.0\.1:\d+$/);
    await pg.ok('rm', '-f', 'one');
  });

  it('names the port that is taken, by a container or by another program, and leaves nothing of the failed one', async () => {
    await pg.ok('run', '-d', '--name', 'first', '-p', '127.0.0.1::80', IMAGE, ...web);
    const port = (await pg.ok('port', 'first', '80')).split(':')[1]!;
    const second = await pg.pg('run', '--rm', '-p', `${port}:80`, IMAGE, 'true');
    assert.equal(second.code, 125);
    assert.match(second.stderr, new RegExp(`${port}.*port is already allocated`));
    await pg.ok('rm', '-f', 'first');
    assert.equal((await pg.pg('run', '--rm', '-p', `${port}:80`, IMAGE, 'true')).code, 0);
    assert.equal(await pg.ok('ps', '-aq'), '');
  });

  it('publishes what the image exposes with -P', async () => {
    await pg.ok('run', '-d', '--name', 'all', '--expose', '80', '-P', IMAGE, ...web);
    assert.match(await pg.ok('port', 'all'), /^80\/tcp -> 0\.0\.0\.0:\d+$/);
    await pg.ok('rm', '-f', 'all');
  });

  it('has no network with none, the host’s with host', async () => {
    const none = await pg.ok('run', '--rm', '--network', 'none', IMAGE, 'ip', '-o', 'addr');
    assert.deepEqual([...new Set(none.match(/^\d+: \S+/gm))], ['1: lo']);
    const own = await pg.ok('run', '--rm', '--network', 'host', IMAGE, 'ls', '-l', '/proc/self/ns/net');
    assert.ok(own.includes(execFileSync('readlink', ['/proc/self/ns/net'], { encoding: 'utf8' }).trim()));
    assert.equal((await pg.pg('run', '--rm', '--network', 'host', '-p', '80', IMAGE, 'true')).code, 125);
    assert.equal((await pg.pg('run', '--rm', '--network', 'nosuch', IMAGE, 'true')).code, 125);
  });

  it('makes its rules anew when someone has flushed them', async () => {
    await pg.ok('run', '-d', '--name', 'before', '-p', '80', IMAGE, ...web);
    const table = bridge.replace('-', '_');
    execFileSync('nft', ['delete', 'table', 'ip', table]);
    await pg.ok('run', '-d', '--name', 'after', '-p', '80', IMAGE, ...web);
    for (const name of ['before', 'after']) {
      const port = (await pg.ok('port', name, '80')).split(':')[1];
      await until(`${name} answers`, async () => (await get(`http://127.0.0.1:${port}/`)) === 'hello from the image\n');
    }
    await pg.ok('rm', '-f', 'before', 'after');
  });

  it('gives different addresses to many at once, and two installations do not collide', async () => {
    const other = await Installation.open();
    try {
      const start = (installation: Installation, i: number) =>
        installation.ok('run', '-d', '--name', `n${i}`, IMAGE, ...web);
      await Promise.all([start(pg, 1), start(other, 1), start(pg, 2), start(other, 2), start(pg, 3)]);
      const ips: string[] = [];
      for (const [installation, count] of [[pg, 3] as const, [other, 2] as const]) {
        for (let i = 1; i <= count; i++) {
          const ip = await installation.ok('inspect', '-f', '{{.NetworkSettings.IPAddress}}', `n${i}`);
          assert.equal(await get(`http://${ip}/`), 'hello from the image\n');
          ips.push(ip);
        }
      }
      assert.equal(new Set(ips).size, 5);
      await pg.ok('rm', '-f', 'n1', 'n2', 'n3');
    } finally {
      await other.close();
    }
  });
});
