#!/usr/bin/perl
# Counts words of the reads in a hash, and sorts them by way of a temporary file that has no name.
use strict;
use warnings;

my ($reads, $result) = @ARGV;
my %count;
open(my $in, '<', $reads) or die $!;
open(my $spill, '+>', undef) or die $!;
while (my $line = <$in>) {
    next unless $. % 4 == 2;
    chomp $line;
    $count{substr($line, $_, 17)}++ for 0 .. length($line) - 17;
    print $spill substr($line, 0, 40), "\n" if $. % 40 == 2;
}
seek($spill, 0, 0);
my $first = 0;
while (<$spill>) { $first++ }
open(my $out, '>', $result) or die $!;
print $out "$first\n";
print $out "$_ $count{$_}\n" for sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count;
close($out) or die $!;
