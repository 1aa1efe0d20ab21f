import { spawn } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startMount } from '../../../fs/mount.ts';

/** Mounts the empty image on argv[2], with its log in argv[3] and its store in argv[4], and has the acknowledged writer work there for argv[5] ms. */
const [at, logDir, data, timeText] = process.argv.slice(2) as [string, string, string, string];
mkdirSync(at, { recursive: true });
const roots = { data, run: `${data}/run`, config: `${data}/etc` };
const mount = await startMount({ roots, treeRoot: null, logDir, mountPoint: at, label: 'crash' });
const writer = fileURLToPath(new URL('../mount/acknowledged-writer.ts', import.meta.url));
const child = spawn(process.execPath, [writer, at, '1'], { stdio: ['ignore', 'pipe', 'inherit'] });
child.stdout.resume();
await sleep(Number(timeText));
child.kill('SIGKILL');
await new Promise((resolve) => child.once('close', resolve));
await mount.unmount();
await mount.closed;
