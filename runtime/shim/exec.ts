import { rm, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import type { AttachOptions, ExecOptions } from '../control.ts';
import { closeFd, type Exit, listenForDescriptor } from '../native.ts';
import type { ContainerConfig } from '../record.ts';
import { execProcess, type HostSide } from '../spec.ts';
import type { ResolvedUser } from '../users.ts';
import type { OciRuntime } from './oci.ts';
import type { Reaper } from './reaper.ts';
import { ProcessStreams } from './streams.ts';

const CONSOLE_TIMEOUT_MS = 20_000;
const DRAIN_MS = 500;

/** Starts the runtime with a terminal or with pipes for the process; its number. `streams.begin` is the caller's. What was opened is closed again on failure. */
export async function startWithStreams(
  streams: ProcessStreams,
  withTerminal: boolean,
  withInput: boolean,
  start: (
    stdio: [number | 'ignore', number | 'ignore', number | 'ignore'],
    consoleSocket: string | null,
  ) => Promise<number>,
): Promise<number> {
  if (withTerminal) {
    // A short path, as unix(7) wants; the runtime, another process, must be able to name it too.
    const path = `/run/pg-console-${process.pid}-${++consoleNumber}`;
    const listener = listenForDescriptor(path, CONSOLE_TIMEOUT_MS);
    try {
      const pid = await start(['ignore', 'ignore', 'ignore'], path);
      streams.openTerminal(await listener.received);
      return pid;
    } catch (error) {
      // The runtime failed, perhaps after it had sent the terminal: nobody will use it.
      listener.stop();
      listener.received.then(closeFd, () => {});
      throw error;
    } finally {
      await rm(path, { force: true });
    }
  }
  const pipes = streams.openPipes(withInput);
  try {
    const pid = await start(pipes.give, null);
    pipes.adopt();
    return pid;
  } catch (error) {
    pipes.abandon();
    throw error;
  } finally {
    pipes.closeGiven();
  }
}

let execNumber = 0;
let consoleNumber = 0;

/** Runs a command in the running container; resolves once it has started, with its number and a promise of its end. */
export async function execInContainer(
  place: { id: string; runDir: string; config: ContainerConfig; runtime: OciRuntime; reaper: Reaper },
  host: Pick<HostSide, 'boundingSet' | 'nofileLimit' | 'hostname'>,
  exec: ExecOptions & { resolvedUser: ResolvedUser },
  attach: AttachOptions | null,
  client: Socket,
): Promise<{ pid: number; streams: ProcessStreams; begin(): void; exit: Promise<Exit> }> {
  const number = ++execNumber;
  const file = join(place.runDir, `exec-${number}.json`);
  await writeFile(file, JSON.stringify(execProcess(place.config, host, { ...exec, user: exec.resolvedUser })), {
    mode: 0o600,
  });
  const streams = new ProcessStreams(undefined);
  try {
    const pid = await startWithStreams(streams, exec.tty, exec.stdin, (stdio, socket) =>
      place.runtime.exec(place.id, file, stdio, socket),
    );
    const exit = place.reaper.exitOf(pid).then(async (end) => {
      await streams.end(DRAIN_MS);
      streams.finish({ exitCode: end.code });
      return end;
    });
    return {
      pid,
      streams,
      begin: () => {
        if (attach !== null) streams.attach(client, attach);
        streams.begin();
      },
      exit,
    };
  } finally {
    for (const name of [file, `${file}.pid`, `${file}.log`]) void rm(name, { force: true });
  }
}
