import { spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { withCodeCache } from '../store/code-cache.ts';
import type { Roots } from '../store/paths.ts';
import { siblingModule } from '../store/threads.ts';
import { ControlClient } from './control.ts';

const MESSAGES_MAX_BYTES = 1 << 20;

/** Little room for new objects before the collector looks: an idle container's shim should take little memory. */
const NODE_OPTIONS = ['--max-semi-space-size=4', '--expose-gc', '--no-warnings'];

/**
 * Starts a shim process, which waits for a `start` request and ends if the connection is closed without one. So it may be started
 * before it is known what to run, and is ready when that is. It has its own session and outlives this process.
 */
export function spawnShim(roots: Roots): ControlClient {
  mkdirSync(roots.run, { recursive: true, mode: 0o711 });
  const messages = join(roots.run, 'shims.log');
  if ((statSync(messages, { throwIfNoEntry: false })?.size ?? 0) > MESSAGES_MAX_BYTES) truncateSync(messages, 0);
  const log = openSync(messages, 'a', 0o600);
  try {
    const child = spawn(process.execPath, [...NODE_OPTIONS, fileURLToPath(siblingModule(import.meta.url, './shim'))], {
      stdio: ['ignore', log, log, 'pipe'],
      detached: true,
      cwd: '/',
      env: withCodeCache(process.env),
    });
    child.unref();
    const socket = child.stdio[3] as Socket;
    return new ControlClient(socket);
  } finally {
    closeSync(log);
  }
}
