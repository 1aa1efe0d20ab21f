import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A tar header (ustar) and its payload, padded. */
function entry(name: string, type: string, mode: number, data: Uint8Array, link = ''): Buffer {
  const header = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number): void => {
    header.write(value.toString(8).padStart(length - 1, '0'), at, 'latin1');
  };
  header.write(name, 0, 'latin1');
  octal(mode, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(data.length, 124, 12);
  octal(1_700_000_000, 136, 12);
  header.write('        ', 148, 'latin1');
  header.write(type, 156, 'latin1');
  header.write(link, 157, 'latin1');
  header.write('ustar\x0000', 257, 'latin1');
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    7,
  );
  const padded = Buffer.alloc(Math.ceil(data.length / 512) * 512);
  padded.set(data);
  return Buffer.concat([header, padded]);
}

const NONE = new Uint8Array(0);
const file = (name: string, text: string, mode = 0o644): Buffer => entry(name, '0', mode, Buffer.from(text));
const dir = (name: string, mode = 0o755): Buffer => entry(`${name}/`, '5', mode, NONE);

const APPLETS =
  'sh ash ls cat echo true false sleep id env pwd hostname ps kill mkdir rm touch stat mount ip nc wget httpd ping dd test head tail stty tty wc sync chmod chown ln grep sed awk seq yes printf date od cp mv df find sha256sum trap nslookup time tr';

/** Writes a docker-archive with busybox in it, two users, and some of an image's settings. The name of the image is `pgtest/busybox:latest`. */
export function writeBusyboxArchive(directory: string, config: object = {}): string {
  const layer = Buffer.concat([
    ...['bin', 'etc', 'root', 'home', 'var', 'usr', 'www'].map((name) => dir(name)),
    dir('tmp', 0o1777),
    entry('bin/busybox', '0', 0o755, readFileSync('/bin/busybox')),
    ...APPLETS.split(' ').map((name) => entry(`bin/${name}`, '2', 0o777, NONE, 'busybox')),
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home:/bin/sh\n'),
    file('etc/group', 'root:x:0:\nalice:x:1000:\nstaff:x:50:alice,root\n'),
    file('bin/notexecutable', 'text\n', 0o644),
    file('www/index.html', 'hello from the image\n'),
    Buffer.alloc(1024),
  ]);
  const sha = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');
  const configText = JSON.stringify({
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    created: '2024-01-01T00:00:00Z',
    config: { Env: ['PATH=/bin', 'FROM_IMAGE=yes'], Cmd: ['sh'], Labels: { kind: 'test' }, ...config },
    rootfs: { type: 'layers', diff_ids: [`sha256:${sha(layer)}`] },
  });
  const configName = `${sha(configText)}.json`;
  const manifest = [{ Config: configName, RepoTags: ['pgtest/busybox:latest'], Layers: ['layer.tar'] }];
  const path = join(directory, 'busybox.tar');
  writeFileSync(
    path,
    Buffer.concat([
      entry('layer.tar', '0', 0o644, layer),
      file(configName, configText),
      file('manifest.json', JSON.stringify(manifest)),
      Buffer.alloc(1024),
    ]),
  );
  return path;
}
