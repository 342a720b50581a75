{
  'variables': { 'sanitize%': 0 },
  'targets': [
    {
      'target_name': 'pagewake_native',
      'sources': [
        'src/addon.cc',
        'src/args.cc',
        'src/bytes.cc',
        'src/file_calls.cc',
        'src/holes.cc',
        'src/ledger.cc',
        'src/ledger_handle.cc',
        'src/ledger_memory.cc',
        'src/ledger_registry.cc',
        'src/loop_poll.cc',
        'src/loop_spin.cc',
        'src/lz4.cc',
        'src/mapping.cc',
        'src/memory_file.cc',
        'src/outcome.cc',
        'src/probe.cc',
        'src/probe_guest_memfd.cc',
        'src/probe_kvm.cc',
        'src/probe_uffd.cc',
        'src/probe_userfault.cc',
        'src/probe_vcpu.cc',
        'src/process_maps.cc',
        'src/process_memory.cc',
        'src/socket_calls.cc',
        'src/uffd.cc',
        'src/uffd_calls.cc',
        'src/unix_socket.cc',
        'src/userfault_bitmap.cc',
        'src/zero.cc',
      ],
      'defines': [
        'NAPI_VERSION=9',
        # A worker that is being ended cannot throw any more: without this node-addon-api ends the whole process instead.
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
        'NAPI_DISABLE_CPP_EXCEPTIONS', '_GNU_SOURCE'],
      # Headers that are not ours come in as system headers: -Werror is for our own code.
      'cflags_cc': [
        '-std=c++20', '-O2', '-Wall', '-Wextra', '-Werror', '-fvisibility=hidden',
        '-isystem', '<!(node -p "require(\'path\').dirname(require.resolve(\'node-addon-api\'))")',
      ],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-O3'],
      # Into the addon: where it runs nothing has to be installed for it.
      'libraries': ['-l:liblz4.a'],
      'conditions': [
        ['sanitize==1', {
          'cflags_cc': ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer', '-g', '-O1'],
          'ldflags': ['-fsanitize=address,undefined'],
        }],
      ],
    },
    {
      # For the tests: the process that faults.
      'target_name': 'pagewake_toucher',
      'type': 'executable',
      'sources': ['test/fixture/machine.cc', 'test/fixture/toucher.cc'],
      'cflags_cc': ['-std=c++20', '-O1', '-Wall', '-Wextra', '-Werror'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-O3'],
      'libraries': ['-lpthread'],
    },
  ],
}
