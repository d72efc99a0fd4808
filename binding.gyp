{
  "targets": [
    {
      "target_name": "penstock",
      "sources": ["<!@(node -p \"const g=d=>fs.readdirSync(d,{withFileTypes:true}).flatMap(e=>e.isDirectory()?g(d+'/'+e.name):/\\.cc$/.test(e.name)?[d+'/'+e.name]:[]);[...g('native'),...g('bindings')].sort().join(' ')\")"],
      "include_dirs": ["."],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_DISABLE_DEPRECATED", "NAPI_DISABLE_CPP_EXCEPTIONS", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"],
      "cflags": ["-O2", "-g1", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wno-unused-parameter", "-Wno-missing-field-initializers"],
      "cflags_cc": ["-std=c++20", "-fno-rtti", "-isystem ../<!(node -p \"require('node-addon-api').include_dir\")"],
      "cflags_cc!": ["-std=gnu++17", "-std=gnu++20", "-fno-exceptions"],
      "libraries": ["-lrocksdb"],
      "ldflags": ["-Wl,-z,now"]
    }
  ]
}
