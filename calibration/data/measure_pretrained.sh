#!/usr/bin/env bash
# Measures sweeps of pretrained models in sweeps/, each policy at its own rate. From the top of
# the repository: bash calibration/data/measure_pretrained.sh SMOLLM2.gguf GEMMA.gguf [NAME…]
# What is there already is not measured again; a pass takes minutes, a sweep about half an hour.
set -eu
smollm2=$1 gemma=$2
shift 2
layerpick=${LAYERPICK:-layerpick}
data=calibration/data/datasets
common=(--dtype auto --prompts 8 --group-size 8 --steps 20 --seeds 2
  --heldout-prompts 200 --heldout-samples 2 --stop '\n'
  --probes weights,hidden,gradient,one_step,off_policy --probe-prompts 16
  --out calibration/data/sweeps)

sweep() { # model, name, options
  local model=$1 name=$2 rates=2e-5,6e-5,2e-4 layers=every:3 together=10
  [ "$model" = "$smollm2" ] || { rates=5e-6,2e-5,8e-5 layers=every:2 together=9; }
  shift 2
  "$layerpick" sweep "$model" --name "$name" --lr-grid "$rates" --layers "$layers" \
    --policies-per-pass "$together" "${common[@]}" "$@"
}
digits=(--task math --max-new-tokens 4 --heldout-prompts 36 --heldout-samples 8
  --dataset 'reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=1'
  --template '3 + 5 = 8\n7 - 2 = 5\n{expression} =')
sums=(--task math --max-new-tokens 5
  --dataset 'reasoning-gym:chain_sum?min_terms=2&max_terms=2&min_digits=1&max_digits=2'
  --template '13 + 25 = 38\n7 - 2 = 5\n6 + 41 = 47\n35 - 4 = 31\n{expression} =')
names=(--task math --max-new-tokens 6 --temperature 0.7 --reward "$data/exact.py:exact"
  --dataset 'reasoning-gym:needle_haystack?min_num_statements=2&max_num_statements=2'
  --template 'Ann likes tea. Bob hates rain.\nWho hates rain? Reply only with a name.\nBob\nDan rides horses. Eve reads books.\nWho rides horses? Reply only with a name.\nDan\n{prompt}\n')
divisors=(--task math --max-new-tokens 4 --temperature 0.5
  --dataset 'reasoning-gym:gcd?min_numbers=2&max_numbers=2&min_value=2&max_value=40'
  --template 'gcd [12, 18] = 6\ngcd [7, 10] = 1\ngcd [30, 10] = 10\ngcd {numbers} =')
programs=(--task code --max-new-tokens 7 --dataset "$data/one_step_programs.jsonl" --heldout-prompts 40
  --heldout-samples 8 --template '# minus 4\ndef f(x): return x - 4\n# double\ndef f(x): return x * 2\n{prompt}')
problems=(--task math --max-new-tokens 9 --temperature 0.7 --dataset "$data/word_problems.jsonl"
  --heldout-prompts 120 --heldout-samples 4
  --template 'Tom had 8 apples and ate 3. How many are left? Use 8 and 3.\n8 - 3\nEach of 6 boxes holds 7 eggs. How many eggs are there? Use 7 and 6.\n7 * 6\n{prompt} Use {numbers}.\n')
corridor=(--task agentic --algorithm gigpo --max-new-tokens 3 --steps 12 --heldout-prompts 100 --env "$data/worlds.py:Corridor"
  --template 'Door 3, wanted 5:\n> up\nDoor 4, wanted 5:\n> up\n\nDoor 17, wanted 16:\n> down\n\nDoor 9, wanted 7:\n> down\nDoor 8, wanted 7:\n> down\n\n{prompt}')
market=(--task agentic --algorithm gigpo --max-new-tokens 4 --temperature 0.7 --steps 12
  --env "$data/worlds.py:Market"
  --template 'Max sells soap. Sue sells wine. Who sells wine?\n> Sue\nTom sells rice. Ann sells fish. Who sells rice?\n> Tom\n\n{prompt}')
till=(--task agentic --algorithm gigpo --max-new-tokens 3 --temperature 0.7 --env "$data/till.py:Till"
  --template '3 + 5 =\n> 8\n8 - 2 =\n> 6\n\n4 + 3 =\n> 7\n7 - 4 =\n> 3\n\n{prompt}')

measure() {
  case $1 in
    smollm2-digits) sweep "$smollm2" digits --lr-grid 3e-5,1e-4 "${digits[@]}" ;;
    smollm2-digits-dr_grpo) sweep "$smollm2" digits-dr_grpo --lr-grid 3e-5,1e-4 --algorithm dr_grpo "${digits[@]}" ;;
    smollm2-names) sweep "$smollm2" names --lr-grid 2e-5,2e-4 "${names[@]}" ;;
    smollm2-corridor) sweep "$smollm2" corridor --lr-grid 6e-5,2e-4 "${corridor[@]}" ;;
    smollm2-market) sweep "$smollm2" market --seeds 3 --lr-grid 2e-5,2e-4 "${market[@]}" ;;
    smollm2-sums) sweep "$smollm2" sums --seeds 3 "${sums[@]}" ;;
    smollm2-sums-dr_grpo) sweep "$smollm2" sums-dr_grpo --algorithm dr_grpo "${sums[@]}" ;;
    smollm2-divisors) sweep "$smollm2" divisors --seeds 3 --dtype float32 --lr-grid 2e-5,2e-4 --algorithm dr_grpo "${divisors[@]}" ;;
    smollm2-problems) sweep "$smollm2" problems --lr-grid 2e-5,2e-4 "${problems[@]}" ;;
    smollm2-programs) sweep "$smollm2" programs "${programs[@]}" ;;
    gemma-names) sweep "$gemma" names --dtype float32 --lr-grid 1e-5,4e-5 "${names[@]}" ;;
    gemma-market) sweep "$gemma" market --lr-grid 1e-5,4e-5 "${market[@]}" ;;
    gemma-corridor) sweep "$gemma" corridor --lr-grid 1e-5,4e-5 "${corridor[@]}" ;;
    gemma-till) sweep "$gemma" till --lr-grid 5e-6,2e-5 "${till[@]}" ;;
    gemma-digits) sweep "$gemma" digits --seeds 3 "${digits[@]}" ;;
    gemma-digits-dr_grpo) sweep "$gemma" digits-dr_grpo --lr-grid 5e-6,2e-5 --algorithm dr_grpo "${digits[@]}" ;;
    gemma-sums) sweep "$gemma" sums "${sums[@]}" --temperature 0.7 ;;
    gemma-problems) sweep "$gemma" problems --seeds 3 --lr-grid 1e-5,4e-5 "${problems[@]}" ;;
    gemma-programs) sweep "$gemma" programs "${programs[@]}" ;;
    gemma-divisors) sweep "$gemma" divisors --seeds 3 --lr-grid 5e-6,1e-5 "${divisors[@]}" ;;
    *) echo "There is no sweep $1." >&2; exit 2 ;;
  esac
}
# Begun and given up: gemma-sums (full RL falls from 0.13 to 0.00-0.10 at every rate, single layers reach 0.21),
# smollm2-corridor (full RL ends at 0.48 whatever the rate and seed, by one constant answer; base 0.43), and
# the nth word of a list on Gemma (full RL ends where it began, at 0.37, at both rates), and least common
# multiples of numbers up to 12 (25 different problems are held out, too few), and gemma-market (base 0.41, full RL
# 0.43 and 0.27 at 1e-5, 0.32 and 0.29 at 4e-5), and problems on both with the numbers in the order of the text
# (base 0.18 on SmolLM2, 0.13 on Gemma; full RL ends at one rule, the first minus the second, right for 31 of 120;
# with the larger number first it ends at that rule too, which is right for 58 then, and layers differ).
all=(gemma-till smollm2-{sums,market} {smollm2,gemma}-{digits,programs,divisors,names,problems,digits-dr_grpo})
for name in "${@:-${all[@]}}"; do measure "$name"; done
