/** What an image is made of: Debian packages on a common base, then files, then how it starts. */
export interface Recipe {
  /** Debian packages of the second layer. */
  packages: string[];
  /** The security suite's packages too, and those of the base brought up to date: what an upgraded image is. */
  upgraded?: boolean;
  /** Shell run in the root after the packages, same layer. */
  setup?: string;
  /** Files of the third layer: path -> content and mode. */
  files: Record<string, { text: string; mode?: number }>;
  config: {
    Cmd?: string[];
    Entrypoint?: string[];
    Env?: string[];
    ExposedPorts?: Record<string, object>;
    WorkingDir?: string;
    StopSignal?: string;
    User?: string;
  };
}

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const BASIC: Record<string, Recipe> = {
  nginx: {
    packages: ['nginx-light', 'curl'],
    setup:
      'ln -sf /dev/stdout /var/log/nginx/access.log; ln -sf /dev/stderr /var/log/nginx/error.log; install -d -o www-data /srv/notes',
    files: {
      '/var/www/html/index.html': { text: '<!doctype html>\n<title>pg</title>\n<h1>nginx on PromiseGrid</h1>\n' },
      '/etc/nginx/sites-available/default': {
        text: `server {
  listen 80 default_server;
  root /var/www/html;
  client_max_body_size 64m;
  location / { try_files $uri $uri/ =404; }
  # What visitors leave behind: PUT /notes/NAME writes into the container's writable layer.
  location /notes/ { alias /srv/notes/; dav_methods PUT DELETE; create_full_put_path on; }
}
`,
      },
      '/srv/notes/readme.txt': { text: 'PUT /notes/NAME to write here\n' },
    },
    config: {
      Cmd: ['/usr/sbin/nginx', '-g', 'daemon off;'],
      Env: [PATH],
      ExposedPorts: { '80/tcp': {} },
      StopSignal: 'SIGQUIT',
    },
  },
  python: {
    packages: ['python3', 'python3-numpy', 'python3-scipy'],
    files: { '/etc/motd': { text: 'a Debian with python3, numpy and scipy\n' } },
    config: { Cmd: ['/usr/bin/python3'], Env: [PATH] },
  },
  redis: {
    packages: ['redis-server'],
    files: { '/data/.keep': { text: '' } },
    config: {
      Cmd: [
        'redis-server',
        '--bind',
        '0.0.0.0',
        '--protected-mode',
        'no',
        '--dir',
        '/data',
        '--appendonly',
        'yes',
        '--appendfsync',
        'always',
      ],
      Env: [PATH],
      ExposedPorts: { '6379/tcp': {} },
      WorkingDir: '/data',
    },
  },
  postgres: {
    packages: ['postgresql', 'postgresql-contrib'],
    setup: 'rm -rf /var/lib/postgresql/15/main /etc/postgresql/15/main',
    files: {
      '/usr/local/bin/start-postgres': {
        mode: 0o755,
        text: `#!/bin/sh
# Makes the cluster at the first start, then runs the server in the foreground.
set -e
data=/var/lib/postgresql/data
bin=$(ls -d /usr/lib/postgresql/*/bin)
if [ ! -s "$data/PG_VERSION" ]; then
  "$bin/initdb" -D "$data" -U postgres --auth=trust >/dev/null
  echo "host all all all trust" >> "$data/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$data/postgresql.conf"
fi
exec "$bin/postgres" -D "$data" "$@"
`,
      },
    },
    config: {
      Cmd: ['/usr/local/bin/start-postgres'],
      Env: [PATH],
      ExposedPorts: { '5432/tcp': {} },
      User: 'postgres',
      WorkingDir: '/var/lib/postgresql',
      StopSignal: 'SIGINT',
    },
  },
  tools: {
    packages: ['git', 'sqlite3', 'python3-minimal'],
    files: { '/etc/motd': { text: 'a Debian with git, sqlite3 and python3\n' } },
    config: { Cmd: ['/bin/bash'], Env: [PATH] },
  },
};

export const RECIPES: Record<string, Recipe> = {
  ...BASIC,
  base: { packages: [], files: { '/etc/motd': { text: 'a Debian\n' } }, config: { Cmd: ['/bin/bash'], Env: [PATH] } },
  'nginx-upgraded': { ...BASIC['nginx']!, upgraded: true },
};
