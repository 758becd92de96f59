"""Attempts to leave the sandbox. Each is the body of `attack(sample, item)`, which returns True if it succeeded.

An error, or no verdict, is a failed attempt. `item` names things outside: a `secret` file with the text `marker`, the
`project` folder, the `port` of a TCP server, the `name` of an abstract socket, an environment `variable`, the id of a
`process`.
"""

import textwrap

# Runs an attack, or returns what it is asked for. It is as careless as a `grade` that executes what a model wrote.
GRADER = """
import ctypes, gc, math, os, re, resource, signal, socket, struct, sys, threading, time

calls = []

def grade(sample, item):
    calls.append(sample)
    assert calls == [sample] and not os.listdir("/tmp") and math.sqrt(4) == 2
    if "attack" not in sample:
        return sample["right"]
    space = dict(globals())
    exec(sample["attack"], space)
    return 1.0 if space["attack"](sample, item) else 0.0

libc = ctypes.CDLL(None, use_errno=True)
arm = os.uname().machine == "aarch64"

def reached(result):
    return result != -1 or ctypes.get_errno() != 1  # the kernel did something else than the filter's EPERM

def call(x86, generic, *arguments):
    return reached(libc.syscall(generic if arm else x86, *arguments))
"""

_READING = {
    "reads a file of the host": "return item['marker'] in open(item['secret']).read()",
    "reads the password file": "return bool(open('/etc/shadow').read())",
    "reads the users": "return bool(open('/etc/passwd').read())",
    "reads the project": "return bool(os.listdir(item['project']))",
    "imports the project": "sys.path.append(item['project']); import calibrl_core; return True",
    "imports an installed package": """
        import site
        sys.path += site.getsitepackages() + [os.path.dirname(os.__file__) + '/site-packages']
        import pip
        return True""",
    "lists the host's folders": """
        names = {'boot', 'home', 'media', 'mnt', 'opt', 'proc', 'run', 'srv', 'sys', 'var', 'work'}
        return bool(names & set(os.listdir('/')))""",
    "reads the environment of the parent": "return item['variable'] in os.environ or 'PATH' in os.environ",
    "reads an environment in proc": "return bool(open('/proc/1/environ', 'rb').read())",
    "lists processes": "return any(name.isdigit() for name in os.listdir('/proc'))",
    "writes its own memory through proc": "return bool(open('/proc/self/mem', 'r+b'))",
    "enters a process's root": "return bool(os.listdir(f\"/proc/{item['process']}/root\"))",
    "lists devices": "return set(os.listdir('/dev')) != {'null'}",
    "reads the kernel's settings": "return bool(os.listdir('/sys'))",
    "climbs out with dots": "return bool(open('/tmp/' + '../' * 40 + item['secret'][1:]).read())",
    "climbs out through an open folder": """
        folder = os.open('/', os.O_RDONLY)
        return bool(os.open('..' + item['secret'], os.O_RDONLY, dir_fd=folder))""",
    "follows a link to the host": "os.symlink(item['secret'], '/tmp/x'); return bool(open('/tmp/x').read())",
    "finds an inherited file": """
        found = []
        for fd in range(3, 1024):
            try: found.append(os.fstat(fd))
            except OSError: pass
        return len(found) != 1  # the pipe of its own verdict""",
}

_WRITING = {
    "writes to the root": "open('/x', 'w').write('x'); return True",
    "changes the sandbox's program": "open('/program.py', 'a').write('x'); return True",
    "changes the standard library": "open(os.__file__, 'a').write('x'); return True",
    "adds to the standard library": "open(os.path.dirname(os.__file__) + '/x.py', 'w'); return True",
    "adds a package": "open(os.path.dirname(os.__file__) + '/site-packages/x.py', 'w'); return True",
    "fills the scratch folder with one file": """
        with open('/tmp/x', 'wb') as file:
            return all(file.write(bytes(2**20)) for _ in range(65))""",
    "fills the scratch folder with many files": """
        return all(open(f'/tmp/{n}', 'wb').write(bytes(2**24)) for n in range(5))""",
    "makes a huge empty file": "open('/tmp/x', 'w').close(); os.truncate('/tmp/x', 2**40); return True",
    "makes files without end": "return all(not open(f'/tmp/{n}', 'w').close() for n in range(2000))",
    "leaves a file for the next call": "open('/tmp/left', 'w').write('x'); return False",
    "makes a device": "os.mknod('/tmp/disk', 0o60600, os.makedev(254, 0)); return True",
    "makes a program with the rights of its owner": """
        open('/tmp/x', 'w').close()
        os.chmod('/tmp/x', 0o4777)
        return True""",
}

_NETWORK = {
    "connects over TCP": "return bool(socket.create_connection(('127.0.0.1', item['port']), 2))",
    "sends over UDP": "return socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 53)) == 1",
    "resolves a name": "return bool(socket.getaddrinfo('example.org', 80))",
    "connects to an abstract socket": """
        socket.socket(socket.AF_UNIX).connect(b'\\0' + item['name'].encode())
        return True""",
    "opens a netlink socket": "return bool(socket.socket(16, socket.SOCK_RAW, 0))",
    "opens a packet socket": "return bool(socket.socket(17, socket.SOCK_RAW, 0))",
    "opens a socket to the hypervisor": "return bool(socket.socket(40, socket.SOCK_STREAM))",
}

_PROCESSES = {
    "forks": "return os.fork() >= 0",
    "forks without a limit": "[os.fork() for _ in range(1000)]; return True",
    "leaves a daemon": "os.fork() and os._exit(0); os.setsid(); return True",
    "forks by system call": "return call(57, 220, 17, 0, 0, 0, 0)",
    "clones with namespaces": "return call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)",
    "clones by the new call": "return call(435, 435, ctypes.create_string_buffer(64), 64)",
    "starts a program": "import subprocess; return bool(subprocess.run([sys.executable, '-c', '']))",
    "spawns a program": "return os.posix_spawn(sys.executable, ['python'], {}) > 0",
    "becomes another program": "os.execv(sys.executable, ['python', '-c', 'import time; time.sleep(600)'])",
    "starts a thread": "threading.Thread(target=time.sleep, args=(600,)).start(); return True",
    "kills the parent": "os.kill(os.getppid(), signal.SIGKILL); return True",
    "kills every process": "os.kill(-1, signal.SIGKILL); return True",
    "kills its process group": "os.killpg(0, signal.SIGKILL); return True",
    "signals a process by a descriptor": "return call(434, 434, os.getppid(), 0)",
    "signals its parent through a pipe": """
        import fcntl
        ours, theirs = os.pipe()
        fcntl.fcntl(ours, 10, signal.SIGKILL)  # F_SETSIG
        fcntl.fcntl(ours, fcntl.F_SETOWN, os.getppid())
        return True""",
    "opens a file of its parent": "return call(438, 438, 3, 3, 0)",
}

_RIGHTS = {
    "becomes root": "os.setuid(0); return True",
    "takes capabilities": "return reached(libc.capset(struct.pack('=II', 0x20080522, 0), bytes([255] * 24)))",
    "traces its parent": "return reached(libc.ptrace(16, os.getppid(), 0, 0))",
    "reads memory of its parent": "return call(310, 270, os.getppid(), 0, 0, 0, 0, 0)",
    "makes a user namespace": "return reached(libc.unshare(0x10000000))",
    "enters a namespace": "return reached(libc.setns(0, 0)) or call(308, 268, 0, 0)",
    "mounts a file system": "return reached(libc.mount(b'x', b'/tmp', b'tmpfs', 0, None))",
    "mounts the root for writing": "return reached(libc.mount(None, b'/', None, 32, None))",
    "unmounts": "return reached(libc.umount2(b'/tmp', 2))",
    "changes the root": "os.chroot('/tmp'); return True",
    "swaps the root": "return call(155, 41, b'/tmp', b'/tmp')",
    "adds a key to the kernel": "return call(248, 217, b'user', b'x', b'y', 1, -3)",
    "loads a BPF program": "return call(321, 280, 0, bytes(64), 64)",
    "counts events of the CPU": "return call(298, 241, bytes(128), 0, -1, -1, 0)",
    "handles page faults": "return call(323, 282, 0)",
    "queues system calls": "return call(425, 425, 8, ctypes.create_string_buffer(256))",
    "changes its personality": "return reached(libc.personality(0x0040000))",
    "loads a kernel module": "return call(175, 105, b'x', 1, b'')",
    "restarts the machine": "return call(169, 142, 0xFEE1DEAD, 0x28121969, 0, 0)",
    "types into a terminal": "return reached(libc.ioctl(0, 0x5412, b'x'))",
    "removes the filter": "return reached(libc.prctl(22, 0, 0, 0, 0)) or reached(libc.prctl(4, 1, 0, 0, 0))",
    "calls by the numbers of x32": "return not arm and reached(libc.syscall(0x40000000 | 57))",
    "raises its limits": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); return True",
    "raises its priority": "os.nice(-5); return True",
}

_RESOURCES = {
    "takes much memory": "return len(bytearray(2**30)) > 0",
    "takes much shared memory": "import mmap; mmap.mmap(-1, 2**30); return True",
    "makes a file in memory": "return os.memfd_create('x') >= 0",
    "opens many files": "return len([os.dup(0) for _ in range(1000)]) == 1000",
    "recurses": """
        sys.setrecursionlimit(2**30)
        def down(): return sorted([1], key=lambda _: down())
        down()""",
    "backtracks": "return bool(re.match('(a+)+$', 'a' * 60 + 'b'))",
    "computes one huge number": "return 7 ** 10**8 > 0",
    "ignores signals": """
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass""",
    "prints without end": "sys.stdout.write('x' * 2**27); sys.stderr.write('x' * 2**27); return False",
    "crashes with a core file": "ctypes.string_at(0)",
}

_OTHER_VERDICTS = {
    "ends the process": "os._exit(0)",
    "exits": "sys.exit(0)",
    "is interrupted": "raise KeyboardInterrupt",
    "raises an error that cannot be printed": """
        class Odd(BaseException):
            def __str__(self): raise self
        raise Odd""",
    "runs code at the exit": "import atexit; atexit.register(lambda: os.write(3, b'[1.0, null]')); return False",
    "writes a verdict everywhere": """
        line = b'{"said": "[1.0, null]", "status": 0, "left_files": false}'
        for fd in range(1024):
            try: os.write(fd, struct.pack('>I', len(line)) + line)
            except OSError: pass
        os._exit(0)""",
    "writes a second verdict": """
        for fd in range(3, 1024):
            try: os.write(fd, b'[1.0, null]')
            except OSError: pass
        return False""",
    "answers at length": """
        for fd in range(3, 1024):
            try: os.write(fd, b'[' * 2**20)
            except OSError: pass""",
    "changes the modules": """
        import json
        math.sqrt = lambda _: 7.0
        math.isfinite = lambda _: True
        json.dumps = json.loads = lambda *_: '[1e99, null]'
        os._exit = os.write = os.read = lambda *_: None
        return True""",
    "changes the built-ins": """
        import builtins
        builtins.float = lambda _: 1e99
        builtins.hasattr = builtins.len = lambda *_: 7
        return True""",
    "finds an earlier sample": """
        secret = 'earlier' + '-truth'
        return any(isinstance(x, dict) and secret in repr(list(x.values()))[:10**6] for x in gc.get_objects())""",
    "finds an earlier sample in memory": """
        def holds(page):  # the two halves apart, so that this text is not found
            texts = ctypes.string_at(page, 4096).split(b'earlier')
            return any(text.startswith(b'-truth') for text in texts[1:])
        near = gc.get_referents(*gc.get_objects())
        pages = {id(x) & ~4095 for x in near + gc.get_referents(*near)}
        return any(holds(page) for page in pages)""",
    "reads the next request": """
        for fd in range(1024):
            try:
                if stat(fd) or os.read(fd, 10): return True
            except (OSError, NameError): pass
        return False""",
    "changes the server through its frames": """
        frame = sys._getframe()
        while frame:
            channel = frame.f_locals.get('channel')
            if channel and channel.fileno() >= 0: return True
            frame = frame.f_back
        return False""",
    "loads a pickle that runs a program": "import pickle; return pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.') == 0",
    "sets an alarm for the next call": "signal.signal(14, print); signal.setitimer(0, 0.001, 0.001); return False",
}


def _function(body: str) -> str:
    return "def attack(sample, item):\n" + textwrap.indent(textwrap.dedent(body.replace("\n        ", "\n")), "    ")


ESCAPES = {
    name: _function(body)
    for group in (_READING, _WRITING, _NETWORK, _PROCESSES, _RIGHTS, _RESOURCES, _OTHER_VERDICTS)
    for name, body in group.items()
}
