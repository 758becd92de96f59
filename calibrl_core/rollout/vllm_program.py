"""Program of a vLLM server that ends with its trainer: `python -m calibrl_core.rollout.vllm_program ARGUMENTS`.

vLLM starts its engine and its workers as further processes. Each imports this module first, as every process that
multiprocessing spawns imports the main module, so each ends with the process that started it.
"""

from calibrl_core.host.parent_death import end_with_parent, is_same_program

end_with_parent(is_same_program, "the process that started this part of vLLM is gone")

if __name__ == "__main__":
    from vllm.entrypoints.launchers.api_server.entry import main

    main()
