import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { withCodeCache } from '../store/code-cache.ts';
import { siblingModule } from '../store/threads.ts';
import type { ToHolder, ToServer } from './control.ts';

/** Little room for new objects before the collector looks: an idle server should take little memory, a busy one lose no speed. */
const NODE_OPTIONS = ['--max-semi-space-size=4', '--expose-gc', '--no-warnings'];

/** A program that serves mounts: this one's own, unless a newer pg brought another. */
export interface ServerProgram {
  node: string;
  script: string;
}

export const ownProgram = (): ServerProgram => ({
  node: process.execPath,
  script: fileURLToPath(siblingModule(import.meta.url, './mount-process')),
});

/** How a server ended. */
export interface ServerExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** One process that serves a mount, or will: as its holder sees it. */
export class ServerProcess {
  readonly pid: number;
  /** When it ended. Nothing is received after that. */
  readonly exited: Promise<ServerExit>;
  private readonly child: ChildProcess;
  private readonly socket: Socket;

  /** Starts it, with descriptors (control.ts) that are the caller's and stay so. Throws as `node:child_process` does. */
  constructor(program: ServerProgram, deviceFd: number, memoryFd: number | null) {
    const inherited = memoryFd === null ? [deviceFd] : [deviceFd, memoryFd];
    this.child = spawn(program.node, [...NODE_OPTIONS, program.script], {
      stdio: ['ignore', 2, 2, 'pipe', ...inherited],
      cwd: '/',
      env: withCodeCache(process.env),
    });
    this.pid = this.child.pid ?? 0;
    this.socket = this.child.stdio[3] as Socket;
    // That it is gone is told by its exit.
    this.socket.on('error', () => {});
    this.exited = new Promise((resolve) => {
      this.child.once('error', () => resolve({ code: 127, signal: null }));
      // 'close' comes when everything that it had sent was received.
      this.child.once('close', (code, signal) => resolve({ code, signal }));
    });
  }

  onMessage(hear: (message: ToHolder) => void): void {
    let pending = '';
    this.socket.setEncoding('utf8').on('data', (text: string) => {
      const lines = (pending + text).split('\n');
      pending = lines.pop()!;
      for (const line of lines) hear(JSON.parse(line) as ToHolder);
    });
  }

  send(message: ToServer): void {
    if (this.socket.writable) this.socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Ends one that serves nothing yet. */
  kill(): void {
    this.socket.resume();
    this.child.kill('SIGKILL');
  }
}
